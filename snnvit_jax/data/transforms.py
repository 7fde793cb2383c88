"""Image transforms: pure functions of an image (and a random generator) on the host."""

import dataclasses

import numpy as np
from PIL import Image


def resize(image, size):
    """Returns the image at another size, bicubic, or itself if it has that size already.

    Args:
      image: uint8 [H, W, C], C 1 or 3.
      size: (height, width).
    """
    if image.shape[:2] == tuple(size):
        return image
    squeezed = image[..., 0] if image.shape[-1] == 1 else image
    resized = Image.fromarray(squeezed).resize(size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(resized).reshape(*size, image.shape[-1])


def random_crop(image, padding, rng):
    """Returns a crop of the image's own size at a random place of the zero-padded image.

    Args:
      image: [H, W, C].
      padding: pixels added on every side, >= 0.
      rng: `numpy.random.Generator`.
    """
    H, W, _ = image.shape
    top, left = rng.integers(0, 2 * padding + 1, size=2)
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return padded[top : top + H, left : left + W]


def random_flip(image, rng):
    """Returns the image or, with probability 1/2, its mirror image.

    Args:
      image: [H, W, C].
      rng: `numpy.random.Generator`.
    """
    return image[:, ::-1] if rng.random() < 0.5 else image


def normalize(image, mean, std):
    """Returns (image / 255 - mean) / std as float32.

    Args:
      image: uint8 [H, W, C].
      mean: of pixel values in [0, 1], one for all channels or one each.
      std: likewise, > 0.
    """
    scale = 1 / (255 * np.asarray(std, np.float32))
    offset = np.asarray(mean, np.float32) / np.asarray(std, np.float32)
    return image.astype(np.float32) * scale - offset


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """Everything done to an image for evaluation: resize and normalise.

    Attributes:
      size: (height, width).
      mean: see `normalize`.
      std: see `normalize`.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, example):
        """Returns {"image": float32 [H, W, C], "label": int32}."""
        image = normalize(resize(example["image"], self.size), self.mean, self.std)
        return {"image": image, "label": np.int32(example["label"])}


@dataclasses.dataclass(frozen=True)
class Augment:
    """Random crop and flip, between resizing and normalising.

    Attributes:
      preprocess: what is done in evaluation too.
      crop_padding: see `random_crop`.
      flip: whether to mirror half of the images.
    """

    preprocess: Preprocess
    crop_padding: int
    flip: bool

    def __call__(self, example, rng):
        """Returns what `preprocess` returns, for a randomly changed image."""
        image = resize(example["image"], self.preprocess.size)
        if self.crop_padding:
            image = random_crop(image, self.crop_padding, rng)
        if self.flip:
            image = random_flip(image, rng)
        return self.preprocess({"image": image, "label": example["label"]})
