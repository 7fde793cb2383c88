"""Batches from a source, prepared ahead by Grain in threads or worker processes."""

import contextlib
import dataclasses

import grain
import numpy as np
from absl import flags, logging

from snnvit_jax.data.decode import DamagedImage
from snnvit_jax.data.order import EvaluationOrder, TrainingOrder, WithGaps
from snnvit_jax.data.substitutes import WithSubstitutes

ON_DAMAGED = ("fatal", "skip")
_GRAIN_SAYS_DIED = "terminated unexpectedly"


class WorkerDiedError(RuntimeError):
    """A process that prepares batches is gone."""


@dataclasses.dataclass(frozen=True)
class LoaderOptions:
    """What training and evaluation batches have in common.

    Attributes:
      batch_size: examples in a batch, over all processes.
      image_shape: (H, W, C) after the transforms, (T, H, W, C) of recordings.
      workers: processes that prepare batches; 0 uses threads of this one.
      on_damaged: what a damaged image does: "fatal" raises; "skip" names it, puts another example
        in its place in training, and leaves a gap in evaluation.
      shard: which part of every batch this process takes, (index, number of processes).
      dtype: of the images in a batch, as the transforms give them.
      erasing: whether those of training say what is to be erased; see `transforms`.

    Raises:
      ValueError: naming a value that does not fit.
    """

    batch_size: int
    image_shape: tuple[int, ...]
    workers: int = 0
    on_damaged: str = "fatal"
    shard: tuple[int, int] = (0, 1)
    dtype: str = "float32"
    erasing: bool = False

    def __post_init__(self):
        if self.on_damaged not in ON_DAMAGED:
            raise ValueError(f"on_damaged={self.on_damaged!r} must be one of {ON_DAMAGED}")
        if self.batch_size < 1 or self.batch_size % self.shard[1]:
            raise ValueError(
                f"batch_size={self.batch_size} must be divisible by the {self.shard[1]} processes"
            )

    @property
    def blank(self):
        """The arrays of a gap in an evaluation, all 0; one of training has "erased" besides."""
        return {"image": np.zeros(self.image_shape, self.dtype)}

    @property
    def local_batch_size(self):
        """Examples of a batch that this process prepares."""
        return self.batch_size // self.shard[1]


@contextlib.contextmanager
def train_batches(source, augment, options, *, seed, repeats=1, start_step=0):
    """Gives an endless iterator of training batches, closed at the end of the `with` block.

    Batches follow each other through the epochs without a break: every example comes exactly once
    in each epoch, and a batch may hold the end of one epoch and the start of the next. There are no
    gaps: in place of a damaged image that is skipped comes another example.

    Args:
      source: a `Source`, at least one batch long.
      augment: function of (example, numpy random generator).
      options: `LoaderOptions`.
      seed: of order and augmentation.
      repeats: see `TrainingOrder`.
      start_step: number of batches to leave out at the start.

    Yields:
      An iterator of {"image": [B, H, W, C] or [B, T, H, W, C], "label": int32 [B], "replaced":
      bool [B]}, B being the examples of this process, and "erased" int32 [B, 4] if it is asked
      for. Images are as the transform gives them: whole numbers, which the training step
      normalises. "replaced" says where another example comes in place of a damaged one. It raises
      ValueError for a label outside the classes, for a damaged image unless it is skipped, and if
      none can be found in its place; and WorkerDiedError.

    Raises:
      ValueError: if the source does not fill one batch.
    """
    check_fills_batch(source, options.batch_size)
    order = training_order(source, augment, options.on_damaged, seed=seed, repeats=repeats)
    erased = {"erased": np.zeros(4, np.int32)} if options.erasing else {}
    order = WithGaps(order, options.blank | erased, len(order))
    with _open_iterator(order, options, source.num_classes, start_step) as batches:
        yield map(_without_gaps, batches)


def training_order(source, augment, on_damaged, *, seed, repeats=1):
    """Returns the order of a training's examples, as `TrainingOrder` or `WithSubstitutes`.

    Args:
      source: a `Source`.
      augment: function of (example, numpy random generator).
      on_damaged: see `LoaderOptions`.
      seed: of order and augmentation.
      repeats: see `TrainingOrder`.
    """
    order = TrainingOrder(source.examples, augment, seed, repeats)
    return WithSubstitutes(order) if on_damaged == "skip" else order


@contextlib.contextmanager
def eval_batches(source, preprocess, options):
    """Gives an iterator over every example exactly once; the last batch is filled up with gaps.

    Every process gets the same number of batches.

    Args:
      source: a `Source`.
      preprocess: function of an example.
      options: `LoaderOptions`.

    Yields:
      An iterator of {"image": [B, H, W, C], as the transform gives them, "label": int32 [B],
      "mask": bool [B]}, the mask False for gaps. It raises as that of `train_batches` does.
    """
    length = batch_count(source, options.batch_size) * options.batch_size
    order = EvaluationOrder(source.examples, preprocess)
    order = WithGaps(order, options.blank, length)
    with _open_iterator(order, options, source.num_classes) as batches:
        yield map(_with_mask, batches)


def batch_count(source, batch_size):
    """Returns the number of batches of an evaluation, the last perhaps uneven.

    Args:
      source: a `Source`.
      batch_size: examples in a batch, over all processes.
    """
    return -(-len(source) // batch_size)


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


@contextlib.contextmanager
def _open_iterator(examples, options, num_classes, start_step=0):
    """Gives one iterator over this process's part of every batch and closes it afterwards."""
    index, processes = options.shard
    batches = grain.MapDataset.source(examples).batch(options.local_batch_size, drop_remainder=True)
    batches = batches[start_step * processes + index :: processes]
    iterator = iter(_prefetched(batches, options.workers))
    try:
        yield (_checked(batch, options.on_damaged, num_classes) for batch in _watched(iterator))
    finally:
        close = getattr(iterator, "close", None)
        if close:
            close()


def _watched(iterator):
    """Gives what an iterator gives, until one of its worker processes dies."""
    try:
        yield from iterator
    except RuntimeError as error:
        if _GRAIN_SAYS_DIED not in str(error):
            raise
        raise WorkerDiedError(
            "a process that prepares batches died, perhaps for want of memory; the last checkpoint "
            "is kept: run again, with fewer data.workers, or 0 to use threads"
        ) from error


def _checked(batch, on_damaged, num_classes):
    """Tells of damaged images and checks labels."""
    for message in filter(None, batch["damaged"].tolist()):
        if on_damaged == "fatal":
            raise DamagedImage(f'{message}; remove it, or set data.on_damaged="skip"')
        logging.warning("skipped: %s", message)
    check_labels(batch["label"], num_classes)
    return batch


def _without_gaps(batch):
    """A training batch as the training step takes it."""
    damaged = batch["damaged"]
    for message in damaged[~batch["mask"]].tolist():
        raise DamagedImage(f"{message}; look at the images, and at data.dir")
    arrays = {key: batch[key] for key in ("image", "label", "erased") if key in batch}
    return arrays | {"replaced": damaged != ""}


def _with_mask(batch):
    """An evaluation batch as the evaluation step takes it."""
    return {key: batch[key] for key in ("image", "label", "mask")}


def _prefetched(dataset, workers):
    if not workers:
        return dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))
    if not flags.FLAGS.is_parsed():  # Grain's worker processes read absl flags
        flags.FLAGS.mark_as_parsed()
    dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
    return dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
