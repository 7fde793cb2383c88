"""Images are whole numbers until they are on the device; what makes of them what a model sees."""

import dataclasses

import numpy as np

ERASING_FILLS = ("zero", "noise")  # what comes in the place of an erased rectangle


@dataclasses.dataclass(frozen=True)
class Normalization:
    """What a model sees of an image's whole numbers: (x / unit - mean) / std, float32.

    It is computed as (x - unit * mean) * (1 / (unit * std)): one subtraction and one product with
    constants, each rounded once, so that NumPy and every device give the same bits. The same
    function serves both.

    Attributes:
      mean: of values in [0, 1], one for all channels or one each.
      std: likewise, > 0.
      unit: the whole number that stands for 1: 255 of 8-bit pixels.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    unit: int = 255

    def __call__(self, images):
        """Returns images as a model sees them, float32.

        Args:
          images: [..., C], NumPy or JAX. Whole numbers; floating-point numbers are taken for
            normalised and stay as they are.
        """
        return self.of_units(images) if images.dtype.kind in "ui" else images

    def of_units(self, images):
        """Returns images as a model sees them, whatever type their values from 0 to `unit` have.

        Args:
          images: [..., C], NumPy or JAX.
        """
        centre, scale = self.unit * np.array(self.mean), 1 / (self.unit * np.array(self.std))
        return (images.astype(np.float32) - np.float32(centre)) * np.float32(scale)


def normalised(images, normalization):
    """Returns images as a model sees them.

    Args:
      images: [..., C], see `Normalization`.
      normalization: a `Normalization`; None if they are seen as they are.
    """
    return images if normalization is None else normalization(images)
