"""The format of a trained network: a folder with config.json, model.safetensors and a card.

config.json says how the model is built, how images are prepared for it, what its classes are, how
it was trained and what it reaches; README.md says the same for people (`card`). Weights are those
of the model by the paths of its variables ("params/head/kernel"): matrices in float16, vectors
(normalisations, biases, scores of time steps) in float32, because a statistic or the sign of a
small score must not be lost. config.json holds the SHA-256 of the weights.
"""

import hashlib
import json
import os
import pathlib

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from snnvit_jax.common import files, tensors
from snnvit_jax.common.variables import check_finite, check_floating, params_of
from snnvit_jax.models import create_model, variable_shapes
from snnvit_jax.pretrained import card, description

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_KEYS = ("format", "sha256", "model", "classes", "reading")
_STORED = np.float16  # of matrices
_OF_RUNS = "optimizer"  # what config.json of a run holds, beside which weights may lie too
_LFS = b"version https://git-lfs"  # what a clone holds in place of a large file


def is_network(path):
    """Returns whether a folder is meant to hold a network in this format; a file may be missing.

    Args:
      path: of the folder.
    """
    path = pathlib.Path(path)
    has_weights = os.path.isfile(path / WEIGHTS)  # is_file of a long name raises
    keys = _keys(path)
    if keys is None:
        return has_weights
    return set(_KEYS) <= keys or (has_weights and _OF_RUNS not in keys)


def check_free(path):
    """Raises ValueError for a path at which a network cannot be written without a loss.

    Args:
      path: of the folder that is to hold it; there may be none yet, or an earlier network in this
        format, beside whatever files.
    """
    path = pathlib.Path(path)
    if (path / "checkpoints").exists():
        raise ValueError(f"{path} holds a run, which would be lost: choose another name")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is no folder: choose another name")
    others = [file for file in (CONFIG, WEIGHTS, CARD) if os.path.lexists(path / file)]
    # Not `is_network`, which takes whatever lies beside weights for a network that lacks something.
    if others and not set(_KEYS) <= (_keys(path) or set()):
        raise ValueError(
            f"{path} holds other files ({', '.join(others)}), which would be lost: choose another "
            "name"
        )


def write(path, about, variables):
    """Writes a network, and the card for people.

    Args:
      path: folder to write to; created if there is none.
      about: what config.json holds: "name", "model" ("name", "num_classes", "image_size",
        "time_steps", "settings"), "classes", "reading" (of files, `data.inputs.described`), and for
        the card "trained" and "measured" (see `card.render`); plain values.
      variables: {"params", "batch_stats"} on the host.

    Raises:
      ValueError: naming a weight that is not finite, also as it is stored, or what does not fit in
        `about`, or for a folder that `check_free` refuses; nothing is written then.
      OSError: if something cannot be written.
    """
    check_free(path)
    path, content = pathlib.Path(path), packed(variables)
    about = {"format": FORMAT, **about, "sha256": hashlib.sha256(content).hexdigest()}
    text = json.dumps(about, indent=1) + "\n"
    description.check(json.loads(text), str(path / CONFIG))
    page = card.render(json.loads(text))  # as whoever loads it sees it
    files.make_folder(path)
    files.write_bytes(path / WEIGHTS, content)
    files.write_text(path / CONFIG, text)
    files.write_text(path / CARD, page)


def packed(variables):
    """Returns the content of model.safetensors.

    Args:
      variables: {"params", "batch_stats"} on the host.

    Raises:
      ValueError: for what are no variables, or naming a weight that is not finite, also as it is
        stored.
    """
    params_of(variables)
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    stored = {name: _stored(np.asarray(leaf)) for name, leaf in flat.items()}
    check_finite(stored, f"the weights, some of them as {np.dtype(_STORED)},")
    return tensors.pack(stored)


def read_config(path):
    """Returns what config.json of a network says.

    Args:
      path: its folder.

    Raises:
      FileNotFoundError: if there is no config.json.
      ValueError: naming the file, if it is of another format.
    """
    file = pathlib.Path(path) / CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"{str(file)!r} is missing: copy the network's whole folder")
    try:
        about = json.loads(file.read_bytes())
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{str(file)!r} is damaged, it is no JSON: {error}") from error
    missing = [key for key in _KEYS if key not in about] if isinstance(about, dict) else [*_KEYS]
    if missing:
        raise ValueError(
            f"{str(file)!r} does not describe a network of this package: {missing=}; "
            "experiments/pretrained/export.py writes such folders"
        )
    if about["format"] != FORMAT:
        raise ValueError(
            f"{str(file)!r} has format {about['format']!r}, this version reads {FORMAT}: use the "
            "version of snnvit_jax that wrote it"
        )
    description.check(about, str(file))
    return about


def create(about, path):
    """Returns the model of a network, a Linen module.

    Args:
      about: from `read_config`.
      path: of its folder, for an error's message.

    Raises:
      ValueError: naming the file, if it describes no model.
    """
    try:
        spec = about["model"]
        settings = dict(spec["settings"])
        if "dtype" in settings:
            settings["dtype"] = jnp.dtype(settings["dtype"])
        sizes = (spec["num_classes"], spec["image_size"], spec["time_steps"])
        return create_model(spec["name"], *sizes, **settings)
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{str(pathlib.Path(path) / CONFIG)!r} describes no model: {error!r}"
        ) from error


def read_weights(path, about, model):
    """Returns {"params", "batch_stats"} of a network, float32.

    Args:
      path: its folder.
      about: from `read_config`.
      model: from `create`.

    Raises:
      FileNotFoundError: if there are none.
      ValueError: naming the file, if its SHA-256 is another, it is damaged, or its tensors are not
        the model's or hold no floating-point numbers.
    """
    file = pathlib.Path(path) / WEIGHTS
    if not file.is_file():
        raise FileNotFoundError(f"{str(file)!r}, the weights, is missing: copy the whole folder")
    content = file.read_bytes()
    if content.startswith(_LFS):
        raise ValueError(f"{str(file)!r} is only a pointer to the weights: git lfs pull gets them")
    found = hashlib.sha256(content).hexdigest()
    if found != about["sha256"]:
        raise ValueError(
            f"{str(file)!r} is damaged: its SHA-256 is {found}, config.json says "
            f"{about['sha256']}; copy it again"
        )
    stored = tensors.unpack(content, repr(str(file)))
    check_floating(stored, repr(str(file)))
    _check_shapes(file, stored, variable_shapes(model, description.image_shape(about)))
    arrays = {name: jnp.asarray(leaf, jnp.float32) for name, leaf in stored.items()}
    check_finite(arrays, repr(str(file)))
    return traverse_util.unflatten_dict(arrays, sep="/")


def _keys(path):
    """The keys in a folder's config.json; None if there is none, or it is no JSON object."""
    if not os.path.isfile(path / CONFIG):
        return None
    try:
        return json.loads((path / CONFIG).read_bytes()).keys()
    except (AttributeError, RecursionError, ValueError):
        return None


def _stored(array):
    with np.errstate(over="ignore"):  # becomes infinite, which is refused by name
        kept = array.astype(_STORED if array.ndim > 1 else np.float32)
    return np.asarray(kept, order="C")  # the writer copies memory as it lies


def _check_shapes(file, stored, wanted):
    wanted = {n: x.shape for n, x in traverse_util.flatten_dict(dict(wanted), sep="/").items()}
    given = {name: leaf.shape for name, leaf in stored.items()}
    wrong = sorted(name for name in {*wanted, *given} if wanted.get(name) != given.get(name))
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{str(file)!r} holds another model than config.json says: {len(wrong)} tensors "
            f"differ, {name!r} is {given.get(name)}, not {wanted.get(name)}"
        )
