"""What happens to an image between its source and a batch, as the configuration says."""

import dataclasses
import math

import numpy as np

from snnvit_jax.common import values
from snnvit_jax.common.pixels import ERASING_FILLS, Normalization
from snnvit_jax.data.augment import transforms
from snnvit_jax.data.augment.randaugment import MAX_MAGNITUDE, SETS, RandAugment, rand_augment

# What each setting must be, by its name; what is said of mean and std holds for each channel.
RULES = {
    "image_size": values.whole(1, 2**14),
    "mean": values.several(values.number(0, 1)),
    "std": values.several(values.number(1e-6, 1)),
    "crop_fraction": values.optional(values.number(0.1, 1)),
    "crop_padding": values.whole(0),
    "flip": values.flag(),
    "random_resized_crop": values.flag(),
    "crop_scale": values.interval(1e-6, 1),
    "crop_ratio": values.interval(1e-3, 1e3),
    "erasing_probability": values.number(0, 1),
    "erasing_fill": values.one_of(ERASING_FILLS),
    "randaugment.num_ops": values.whole(0, 100),
    "randaugment.magnitude": values.number(0, MAX_MAGNITUDE),
    "randaugment.magnitude_std": values.number(0),
    "randaugment.probability": values.number(0, 1),
    "randaugment.operations": values.one_of(SETS),
}
_EVALUATION = ("image_size", "mean", "std", "crop_fraction")


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """Everything done to an image for evaluation: bring it to size here, normalise it there.

    Attributes:
      size: (height, width).
      mean: see `Normalization`.
      std: see `Normalization`.
      crop_fraction: None distorts the whole image to the size. A number in [0.1, 1] resizes its
        shorter side to floor(shorter side of `size` / crop_fraction) and takes the middle.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_fraction: float | None = None

    dtype = "uint8"  # of what is called for

    def __call__(self, example):
        """Returns {"image": uint8 [H, W, C], "label": int32}."""
        return {"image": self.fit(example["image"]), "label": np.int32(example["label"])}

    @property
    def normalization(self):
        """The `Normalization` that is left to do, on the device."""
        return Normalization(self.mean, self.std)

    def fit(self, image):
        """Returns the image at its size.

        Args:
          image: uint8 [H, W, C].
        """
        if self.crop_fraction is None:
            return transforms.resize(image, self.size)
        shorter = math.floor(min(self.size) / self.crop_fraction)
        return transforms.resize_shorter_and_crop(image, shorter, self.size)


@dataclasses.dataclass(frozen=True)
class Augment:
    """Everything done to an image for training before it is on the device.

    Crop, flip, RandAugment; and what is erased is drawn. Normalised, erased and mixed it is by the
    training step.

    Attributes:
      preprocess: size and normalisation.
      crop_padding: see `transforms.random_crop`; 0 leaves the whole image.
      flip: whether to mirror half of the images.
      resized_crop: (scale, ratio) of `transforms.random_resized_crop`, in place of distorting the
        whole image to the size; None for the latter.
      randaugment: `RandAugment`, or None.
      erasing_probability: see `transforms.random_rectangle`.
    """

    preprocess: Preprocess
    crop_padding: int = 0
    flip: bool = False
    resized_crop: tuple[tuple[float, float], tuple[float, float]] | None = None
    randaugment: RandAugment | None = None
    erasing_probability: float = 0.0

    def __call__(self, example, rng):
        """Returns {"image": uint8 [H, W, C], "label": int32}, a function of both arguments.

        If anything is ever erased, "erased" is what: see `transforms.random_rectangle`.
        """
        image = self._crop(example["image"], rng)
        if self.flip:
            image = transforms.random_flip(image, rng)
        if self.randaugment:
            image = rand_augment(image, self.randaugment, rng)
        found = {"image": image, "label": np.int32(example["label"])}
        if self.erasing_probability:
            size = self.preprocess.size
            found["erased"] = transforms.random_rectangle(size, self.erasing_probability, rng)
        return found

    def _crop(self, image, rng):
        size = self.preprocess.size
        if self.resized_crop:
            return transforms.random_resized_crop(image, size, *self.resized_crop, rng)
        image = transforms.resize(image, size)
        return transforms.random_crop(image, self.crop_padding, rng) if self.crop_padding else image


def create_preprocess(data, channels):
    """Builds what evaluation does to an image.

    Args:
      data: settings with `image_size`, `mean`, `std` and `crop_fraction`; see `Preprocess`.
      channels: of the images, 1 or 3.

    Returns:
      A `Preprocess`.

    Raises:
      ValueError: naming the key and the value that does not fit.
    """
    _check(data, _EVALUATION)
    for key in ("mean", "std"):
        if len(data[key]) not in (1, channels):
            wanted = "1 value" if channels == 1 else f"1 or {channels} values"
            raise ValueError(f"data.{key}={data[key]!r} needs {wanted}: {channels=} of the images")
    return Preprocess((data.image_size,) * 2, tuple(data.mean), tuple(data.std), data.crop_fraction)


def create_augment(data, channels):
    """Builds what training does to an image.

    Args:
      data: the settings of `create_preprocess` (`crop_fraction` is for evaluation only), and
        `crop_padding`, `flip`, `random_resized_crop` with `crop_scale` and `crop_ratio`,
        `randaugment` with `num_ops`, `magnitude`, `magnitude_std`, `probability` and `operations`
        (a key of `randaugment.SETS`), `erasing_probability`, see `Augment`; and `erasing_fill`,
        see `training.erasing`.
      channels: of the images, 1 or 3.

    Returns:
      An `Augment`.

    Raises:
      ValueError: naming the key and the value that does not fit.
    """
    _check(data, RULES)
    preprocess = create_preprocess(data, channels)
    padding, resized = data.crop_padding, data.random_resized_crop
    if padding and resized:
        raise ValueError(f"data.crop_padding={padding!r} must be 0 with random_resized_crop")
    if padding >= data.image_size:
        raise ValueError(
            f"data.crop_padding={padding!r} must be below data.image_size={data.image_size}, or "
            "some crops would hold nothing of the image"
        )
    return Augment(
        preprocess=preprocess,
        crop_padding=padding,
        flip=data.flip,
        resized_crop=(tuple(data.crop_scale), tuple(data.crop_ratio)) if resized else None,
        randaugment=_create_randaugment(data.randaugment, preprocess.mean),
        erasing_probability=data.erasing_probability,
    )


def _create_randaugment(settings, mean):
    """`RandAugment` filling with the mean colour, or None without operations."""
    if not settings.num_ops:
        return None
    return RandAugment(
        num_ops=settings.num_ops,
        magnitude=settings.magnitude,
        magnitude_std=settings.magnitude_std,
        probability=settings.probability,
        operations=SETS[settings.operations],
        fill=tuple(round(255 * level) for level in mean),
    )


def _check(data, keys):
    for key in keys:
        settings, _, name = key.rpartition(".")
        RULES[key].check(f"data.{key}", (data[settings] if settings else data)[name])
