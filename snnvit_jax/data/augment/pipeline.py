"""What happens to an image between its source and a batch, as the configuration says."""

import dataclasses
import math

import numpy as np

from snnvit_jax.data.augment import transforms
from snnvit_jax.data.augment.randaugment import MAX_MAGNITUDE, SETS, RandAugment, rand_augment


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """Everything done to an image for evaluation: bring it to size and normalise.

    Attributes:
      size: (height, width).
      mean: see `transforms.normalize`.
      std: see `transforms.normalize`.
      crop_fraction: None distorts the whole image to the size. A number in (0, 1] resizes its
        shorter side to floor(shorter side of `size` / crop_fraction) and takes the middle.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_fraction: float | None = None

    def __call__(self, example):
        """Returns {"image": float32 [H, W, C], "label": int32}."""
        image = self.normalize(self.fit(example["image"]))
        return {"image": image, "label": np.int32(example["label"])}

    def fit(self, image):
        """Returns the image at its size.

        Args:
          image: uint8 [H, W, C].
        """
        if self.crop_fraction is None:
            return transforms.resize(image, self.size)
        shorter = math.floor(min(self.size) / self.crop_fraction)
        return transforms.resize_shorter_and_crop(image, shorter, self.size)

    def normalize(self, image):
        """Returns the image as float32, see `transforms.normalize`.

        Args:
          image: uint8 [H, W, C].
        """
        return transforms.normalize(image, self.mean, self.std)


@dataclasses.dataclass(frozen=True)
class Augment:
    """Everything done to an image for training: crop, flip, RandAugment, normalise, erase.

    Attributes:
      preprocess: size and normalisation.
      crop_padding: see `transforms.random_crop`; 0 leaves the whole image.
      flip: whether to mirror half of the images.
      resized_crop: (scale, ratio) of `transforms.random_resized_crop`, in place of distorting the
        whole image to the size; None for the latter.
      randaugment: `RandAugment`, or None.
      erasing_probability: see `transforms.random_erasing`.
    """

    preprocess: Preprocess
    crop_padding: int = 0
    flip: bool = False
    resized_crop: tuple[tuple[float, float], tuple[float, float]] | None = None
    randaugment: RandAugment | None = None
    erasing_probability: float = 0.0

    def __call__(self, example, rng):
        """Returns {"image": float32 [H, W, C], "label": int32}, a function of both arguments."""
        image = self._crop(example["image"], rng)
        if self.flip:
            image = transforms.random_flip(image, rng)
        if self.randaugment:
            image = rand_augment(image, self.randaugment, rng)
        image = self.preprocess.normalize(image)
        if self.erasing_probability:
            image = transforms.random_erasing(image, self.erasing_probability, rng)
        return {"image": image, "label": np.int32(example["label"])}

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
    _check(data, "image_size", data.image_size >= 1, "must be at least 1")
    for key in ("mean", "std"):
        values = data[key]
        _check(data, key, len(values) in (1, channels), f"needs 1 or {channels} values")
        _check(data, key, all(map(math.isfinite, values)), "must be finite")
    _check(data, "std", min(data.std) > 0, "must be above 0")
    fraction = data.crop_fraction
    _check(
        data, "crop_fraction", fraction is None or 0 < fraction <= 1, "must be None or in (0, 1]"
    )
    return Preprocess((data.image_size,) * 2, tuple(data.mean), tuple(data.std), fraction)


def create_augment(data, channels):
    """Builds what training does to an image.

    Args:
      data: the settings of `create_preprocess` (`crop_fraction` is for evaluation only), and
        `crop_padding`, `flip`, `random_resized_crop` with `crop_scale` and `crop_ratio`,
        `randaugment` with `num_ops`, `magnitude`, `magnitude_std`, `probability` and `operations`
        (a key of `randaugment.SETS`), and `erasing_probability`; see `Augment`.
      channels: of the images, 1 or 3.

    Returns:
      An `Augment`.

    Raises:
      ValueError: naming the key and the value that does not fit.
    """
    preprocess = create_preprocess(data, channels)
    padding, resized = data.crop_padding, data.random_resized_crop
    _check(data, "crop_padding", padding >= 0, "must be at least 0")
    _check(data, "crop_padding", not (padding and resized), "must be 0 with random_resized_crop")
    _check_interval(data, "crop_scale", high=1)
    _check_interval(data, "crop_ratio", high=math.inf)
    erasing = data.erasing_probability
    _check(data, "erasing_probability", 0 <= erasing <= 1, "must be in [0, 1]")
    return Augment(
        preprocess=preprocess,
        crop_padding=padding,
        flip=data.flip,
        resized_crop=(tuple(data.crop_scale), tuple(data.crop_ratio)) if resized else None,
        randaugment=_create_randaugment(data.randaugment, preprocess.mean),
        erasing_probability=erasing,
    )


def _create_randaugment(settings, mean):
    """`RandAugment` filling with the mean colour, or None without operations."""
    prefix = "data.randaugment."
    _check(settings, "num_ops", settings.num_ops >= 0, "must be at least 0", prefix)
    fits = 0 <= settings.magnitude <= MAX_MAGNITUDE
    _check(settings, "magnitude", fits, f"must be in [0, {MAX_MAGNITUDE}]", prefix)
    fits = 0 <= settings.magnitude_std < math.inf
    _check(settings, "magnitude_std", fits, "must be at least 0 and finite", prefix)
    _check(settings, "probability", 0 <= settings.probability <= 1, "must be in [0, 1]", prefix)
    _check(
        settings,
        "operations",
        settings.operations in SETS,
        f"must be one of {', '.join(SETS)}",
        prefix,
    )
    if not settings.num_ops:
        return None
    return RandAugment(
        num_ops=settings.num_ops,
        magnitude=settings.magnitude,
        magnitude_std=settings.magnitude_std,
        probability=settings.probability,
        operations=SETS[settings.operations],
        fill=tuple(min(max(round(255 * level), 0), 255) for level in mean),
    )


def _check_interval(data, key, high):
    values = tuple(data[key])
    fits = len(values) == 2 and 0 < values[0] <= values[1] <= high and values[1] < math.inf
    limit = "" if high == math.inf else f" <= {high}"
    _check(data, key, fits, f"must be (low, high) with 0 < low <= high{limit}")


def _check(settings, key, fits, must, prefix="data."):
    if not fits:
        raise ValueError(f"{prefix}{key}={settings[key]!r} {must}")
