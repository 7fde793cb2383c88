"""Predictions for files: what a finished network says of images and recordings, batch by batch."""

import dataclasses

import numpy as np

from snnvit_jax.data import inputs
from snnvit_jax.evaluation.ranking import Ranked, top_classes
from snnvit_jax.runs import networks

BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What is said of one file.

    Attributes:
      path: of the file.
      classes: the most likely ones, most likely first; empty for a file that is damaged.
      error: why the file could not be read; None if it could.
    """

    path: str
    classes: tuple[Ranked, ...] = ()
    error: str | None = None


def predict(network, paths, batch_size=BATCH_SIZE, most=5):
    """Yields the prediction for each file, in the order of `files_of`.

    Args:
      network: a `Deployed` of `networks.open_network`.
      paths: of files and folders.
      batch_size: files computed at once, >= 1.
      most: classes to name for each file.

    Yields:
      A `Prediction`; a file that is damaged or cannot be read yields one that says so.

    Raises:
      FileNotFoundError: naming a path at which there is nothing.
      ValueError: naming a folder without files that the network reads.
    """
    read, names = networks.input_of(network), networks.class_names_of(network)
    files = files_of(network, paths)
    size = min(batch_size, len(files))
    for start in range(0, len(files), size):
        part = files[start : start + size]
        loaded = [_read(read, path) for path in part]
        logits = iter(_logits(network, [x for x in loaded if not isinstance(x, str)], size))
        for path, found in zip(part, loaded, strict=True):
            if isinstance(found, str):
                yield Prediction(path, error=found)
            else:
                yield Prediction(path, tuple(top_classes(next(logits), names, most)))


def files_of(network, paths):
    """Returns the files that `predict` reads.

    Args:
      network: see `predict`.
      paths: of files and folders.

    Raises:
      FileNotFoundError: see `predict`.
      ValueError: see `predict`.
    """
    return inputs.find_files(paths, networks.input_of(network).extensions)


def _read(read, path):
    """What a file holds, or in words why it cannot be read; a damaged image names its file."""
    try:
        return read(path)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"
    except ValueError as error:
        return str(error)


def _logits(network, images, size):
    """Logits of up to `size` images; the batch is filled up, so that one program serves all."""
    if not images:
        return []
    filled = images + images[-1:] * (size - len(images))
    return np.asarray(network(np.stack(filled)))[: len(images)]
