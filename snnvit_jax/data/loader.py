"""Batches from a source, with Grain: the same seed and step always give the same batch.

Training order and augmentation are functions of (seed, step), so resuming needs no iterator state:
the loader simply starts at the step wanted.
"""

import contextlib

import grain
import numpy as np
from absl import flags


@contextlib.contextmanager
def train_batches(source, augment, *, batch_size, seed, start_step=0, workers=0):
    """Gives an endless iterator of training batches, closed at the end of the `with` block.

    Every epoch is another permutation of the source; its last examples that do not fill a batch are
    left out.

    Args:
      source: a `Source`, at least one batch long.
      augment: function of (example, numpy random generator).
      batch_size: examples in a batch.
      seed: of order and augmentation.
      start_step: number of batches to leave out at the start.
      workers: processes that prepare batches; 0 uses threads of this one.

    Yields:
      An iterator of {"image": float32 [B, H, W, C], "label": int32 [B]}.

    Raises:
      ValueError: if the source does not fill one batch.
    """
    check_fills_batch(source, batch_size)
    dataset = (
        grain.MapDataset.source(source.examples)
        .seed(seed)
        .shuffle()
        .random_map(augment)
        .batch(batch_size, drop_remainder=True)
        .repeat(None)
    )[start_step:]
    yield from _open_iterator(dataset, workers, source.num_classes)


@contextlib.contextmanager
def eval_batches(source, preprocess, *, batch_size, workers=0):
    """Gives an iterator over every example exactly once, the last batch padded and masked.

    Args:
      source: a `Source`.
      preprocess: function of an example.
      batch_size: examples in a batch.
      workers: processes that prepare batches; 0 uses threads of this one.

    Yields:
      An iterator of {"image": float32 [B, H, W, C], "label": int32 [B], "mask": bool [B]}.
    """
    dataset = grain.MapDataset.source(source.examples).map(preprocess).batch(batch_size)
    dataset = dataset.map(lambda batch: pad_batch(batch, batch_size))
    yield from _open_iterator(dataset, workers, source.num_classes)


def pad_batch(batch, batch_size):
    """Returns the batch filled up with zeros, and a "mask" that is True for real examples.

    Args:
      batch: {name: array [n, ...]}, n <= batch_size.
      batch_size: examples wanted.
    """
    missing = batch_size - len(batch["label"])
    padded = {
        name: np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1))
        for name, values in batch.items()
    }
    return padded | {"mask": np.arange(batch_size) < batch_size - missing}


def check_fills_batch(source, batch_size):
    """Raises ValueError if a source does not fill one training batch.

    Args:
      source: a `Source`.
      batch_size: examples in a batch.
    """
    if len(source) < batch_size:
        raise ValueError(
            f"{batch_size=} is larger than the {len(source)} examples of split {source.split!r}"
        )


def check_labels(labels, num_classes):
    """Raises ValueError naming the first label outside [0, num_classes).

    Args:
      labels: [B], whole numbers.
      num_classes: of the model.
    """
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise ValueError(f"label {int(wrong[0])} lies outside the {num_classes} classes")


def _open_iterator(dataset, workers, num_classes):
    """Yields one iterator over a dataset's batches and closes it afterwards."""
    iterator = iter(_prefetched(dataset, workers))
    try:
        yield _checked(iterator, num_classes)
    finally:
        close = getattr(iterator, "close", None)
        if close:
            close()


def _checked(iterator, num_classes):
    for batch in iterator:
        check_labels(batch["label"], num_classes)
        yield batch


def _prefetched(dataset, workers):
    if not workers:
        return dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))
    if not flags.FLAGS.is_parsed():  # Grain's worker processes read absl flags
        flags.FLAGS.mark_as_parsed()
    dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
    return dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
