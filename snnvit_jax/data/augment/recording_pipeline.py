"""What happens to a recording between its source and a batch, as the configuration says.

As published, counts are neither normalised nor clipped.
"""

import dataclasses
import math

import numpy as np

from snnvit_jax.common import values
from snnvit_jax.common.pixels import Normalization
from snnvit_jax.data.augment import pipeline, recordings
from snnvit_jax.data.decode import DamagedImage

# What each setting under data.events must be that says what happens to frames.
RULES = {
    "sum_channel": values.flag(),
    "roll": values.whole(0),
    "operations": values.one_of(recordings.SETS),
}

# What is for images only, and the values with which it does nothing.
_FOR_IMAGES = {
    "random_resized_crop": False,
    "erasing_probability": 0.0,
    "crop_fraction": None,
    "mean": (0.0,),
    "std": (1.0,),
}


@dataclasses.dataclass(frozen=True)
class PreprocessRecording:
    """Everything done to a recording for evaluation: bring its frames to size.

    Attributes:
      size: (height, width).
      sum_channel: whether the sum of both polarities becomes a third channel, as some
        recipes have it.
    """

    size: tuple[int, int]
    sum_channel: bool = False

    dtype = "float32"  # of what is called for
    normalization = None

    @property
    def channels(self):
        """Channels of the frames, 2 or 3."""
        return 3 if self.sum_channel else 2

    def __call__(self, example):
        """Returns {"image": float32 [T, H, W, C], "label": int32}."""
        return self.finish(recordings.resize(example["image"], self.size), example["label"])

    def finish(self, frames, label):
        """Returns {"image": float32 [T, H, W, C], "label": int32}.

        Args:
          frames: counts [T, H, W, 2].
          label: whole number.
        """
        frames = frames.astype(np.float32)
        if self.sum_channel:
            frames = np.concatenate([frames, frames.sum(axis=-1, keepdims=True)], axis=-1)
        return {"image": frames, "label": np.int32(label)}


@dataclasses.dataclass(frozen=True)
class AugmentRecording:
    """Everything done to a recording for training; one draw for all of its frames.

    Attributes:
      preprocess: size and channels.
      crop_padding: see `recordings.random_shift`; 0 leaves the frames where they are.
      roll: see `recordings.random_roll`; likewise.
      flip: whether to mirror half of the recordings.
      operations: see `recordings.random_operation`.
    """

    preprocess: PreprocessRecording
    crop_padding: int = 0
    roll: int = 0
    flip: bool = False
    operations: tuple[str, ...] = ()

    def __call__(self, example, rng):
        """Returns {"image": float32 [T, H, W, C], "label": int32}, a function of both arguments."""
        frames = recordings.resize(example["image"], self.preprocess.size)
        if self.crop_padding:
            frames = recordings.random_shift(frames, self.crop_padding, rng)
        if self.flip:
            frames = recordings.random_flip(frames, rng)
        if self.roll:
            frames = recordings.random_roll(frames, self.roll, rng)
        frames = recordings.random_operation(frames, self.operations, rng)
        return self.preprocess.finish(frames, example["label"])


@dataclasses.dataclass(frozen=True)
class AsCounts:
    """What is done to a recording, with the frames as whole numbers until they are on the device.

    Where a pixel is the mean of `parts` of the sensor's, the frames are multiples of 1 / parts, and
    so whole numbers if multiplied with it: half the bytes, and nothing is lost.

    Attributes:
      of: `PreprocessRecording` or `AugmentRecording`.
      parts: pixels of the sensor in one of a frame, >= 1.
    """

    of: PreprocessRecording | AugmentRecording
    parts: int = 1

    dtype = "uint16"

    def __call__(self, *arguments):
        """Returns {"image": uint16 [T, H, W, C], "label": int32}.

        Args:
          *arguments: as for `of`.

        Raises:
          DamagedImage: for a count that batches do not hold.
        """
        example = self.of(*arguments)
        counts, most = np.rint(example["image"] * self.parts), np.iinfo(self.dtype).max
        if counts.max(initial=0) > most:
            raise DamagedImage(
                f"a pixel counts {counts.max():.0f} events in one frame, batches hold {most}"
            )
        return example | {"image": counts.astype(self.dtype)}

    @property
    def normalization(self):
        """What is left to do on the device: the division."""
        return Normalization(unit=self.parts)


def as_counts(transform, size, sensor):
    """Returns a transform of recordings with whole numbers as its frames, if they are some.

    Args:
      transform: `PreprocessRecording` or `AugmentRecording`.
      size: (height, width) of its frames.
      sensor: (height, width) of the recordings. Frames that have no whole number of its pixels in
        each of theirs stay as they are, float32.
    """
    if any(old % new for old, new in zip(sensor, size, strict=True)):
        return transform
    return AsCounts(transform, math.prod(old // new for old, new in zip(sensor, size, strict=True)))


def create_preprocess(data):
    """Builds what evaluation does to a recording.

    Args:
      data: settings with `image_size` and `events.sum_channel`, see `PreprocessRecording`; those
        that are for images only must be off.

    Returns:
      A `PreprocessRecording`.

    Raises:
      ValueError: naming the key and the value that does not fit.
    """
    for key, off in _FOR_IMAGES.items():
        value = tuple(data[key]) if isinstance(data[key], list) else data[key]
        if value != off:
            raise ValueError(f"data.{key}={value!r} is for images; leave it at {off!r} for events")
    if data.randaugment.num_ops:
        raise ValueError(
            f"data.randaugment.num_ops={data.randaugment.num_ops!r} is for images; see "
            "data.events.operations"
        )
    pipeline.RULES["image_size"].check("data.image_size", data.image_size)
    return PreprocessRecording((data.image_size,) * 2, data.events.sum_channel)


def create_augment(data):
    """Builds what training does to a recording.

    Args:
      data: the settings of `create_preprocess`, `crop_padding`, `flip`, and `events` with `roll`
        and `operations` (a key of `recordings.SETS`); see `AugmentRecording`.

    Returns:
      An `AugmentRecording`.

    Raises:
      ValueError: naming the key and the value that does not fit.
    """
    for key, rule in RULES.items():
        rule.check(f"data.events.{key}", data.events[key])
    for key in ("crop_padding", "flip"):
        pipeline.RULES[key].check(f"data.{key}", data[key])
    preprocess = create_preprocess(data)
    for key, value in (("crop_padding", data.crop_padding), ("events.roll", data.events.roll)):
        if value >= data.image_size:
            raise ValueError(
                f"data.{key}={value!r} must be below data.image_size={data.image_size!r}"
            )
    operations = recordings.SETS[data.events.operations]
    return AugmentRecording(preprocess, data.crop_padding, data.events.roll, data.flip, operations)
