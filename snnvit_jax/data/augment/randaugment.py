"""RandAugment (Cubuk et al., NeurIPS 2020) as timm defines it, in its "increasing" form.

Every operation takes a strength s in [0, 1], the magnitude divided by 10; "+-" is a random sign:

    AutoContrast    grey levels of each channel stretched to 0..255; no strength
    Equalize        histogram of each channel flattened; no strength
    Invert          255 - level; no strength
    Rotate          by +-30 s degrees about the centre
    Posterize       keeps the 4 - floor(4 s) highest bits of each level
    Solarize        inverts levels from 256 - floor(256 s) upwards
    SolarizeAdd     adds floor(110 s) to levels below 128
    Color           blend with the grey image by the factor max(0.1, 1 +- 0.9 s); 1 is no change
    Contrast        likewise with the image's mean grey
    Brightness      likewise with black
    Sharpness       likewise with a smoothed image
    ShearX, ShearY  by +-0.3 s pixels for each pixel of distance from the edge
    TranslateXRel, TranslateYRel  by +-0.45 s of the width or height

Rotating, shearing and translating interpolate bicubically, and fill what comes in from outside.
"""

import dataclasses

from PIL import Image, ImageEnhance, ImageOps

from snnvit_jax.data.augment.transforms import from_pillow, to_pillow

MAX_MAGNITUDE = 10


def _sign(rng):
    return -1 if rng.random() < 0.5 else 1


def _plain(function):
    """An operation without strength."""
    return lambda image, strength, rng, fill: function(image)


def _rotate(image, strength, rng, fill):
    degrees = _sign(rng) * 30 * strength
    return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=fill)


def _posterize(image, strength, rng, fill):
    kept = 256 - 2 ** (4 + int(4 * strength))  # Pillow's own would refuse to keep no bit at all
    return _point(image, lambda level: level & kept)


def _solarize(image, strength, rng, fill):
    return ImageOps.solarize(image, 256 - int(256 * strength))


def _solarize_add(image, strength, rng, fill):
    added = int(110 * strength)
    return _point(image, lambda level: min(level + added, 255) if level < 128 else level)


def _point(image, function):
    """The image after a function of the single levels."""
    return image.point([function(level) for level in range(256)] * len(image.getbands()))


def _enhance(enhancer):
    def operation(image, strength, rng, fill):
        return enhancer(image).enhance(max(0.1, 1 + _sign(rng) * 0.9 * strength))

    return operation


def _affine(coefficients):
    """An operation that looks at the place (a x + b y + c, d x + e y + f) for that at (x, y).

    Args:
      coefficients: function of the signed strength and (width, height) that gives a to f.
    """

    def operation(image, strength, rng, fill):
        return image.transform(
            image.size,
            Image.Transform.AFFINE,
            coefficients(_sign(rng) * strength, *image.size),
            Image.Resampling.BICUBIC,
            fillcolor=fill,
        )

    return operation


# Function of (image of mode L or RGB, strength, numpy random generator, fill colour of that mode).
OPERATIONS = {
    "AutoContrast": _plain(ImageOps.autocontrast),
    "Equalize": _plain(ImageOps.equalize),
    "Invert": _plain(ImageOps.invert),
    "Rotate": _rotate,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
    "Color": _enhance(ImageEnhance.Color),
    "Contrast": _enhance(ImageEnhance.Contrast),
    "Brightness": _enhance(ImageEnhance.Brightness),
    "Sharpness": _enhance(ImageEnhance.Sharpness),
    "ShearX": _affine(lambda s, width, height: (1, 0.3 * s, 0, 0, 1, 0)),
    "ShearY": _affine(lambda s, width, height: (1, 0, 0, 0.3 * s, 1, 0)),
    "TranslateXRel": _affine(lambda s, width, height: (1, 0, 0.45 * s * width, 0, 1, 0)),
    "TranslateYRel": _affine(lambda s, width, height: (1, 0, 0, 0, 1, 0.45 * s * height)),
}

SETS = {
    "all": tuple(OPERATIONS),
    # What Zhou et al. (ICLR 2023) trained with on CIFAR.
    "cifar": ("Equalize", "Rotate", "ShearX", "TranslateXRel", "TranslateYRel"),
}


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Settings of RandAugment.

    Attributes:
      num_ops: operations drawn for an image, evenly and independently, >= 0.
      magnitude: mean magnitude, in [0, 10].
      magnitude_std: standard deviation of the normal noise on it, >= 0; the sum is clipped to
        [0, 10].
      probability: with which each drawn operation is carried out, in [0, 1].
      operations: names to draw from, of `OPERATIONS`.
      fill: colour from outside the image, a level for each channel or one for all.

    Raises:
      ValueError: naming a value outside its range.
    """

    num_ops: int = 2
    magnitude: float = 9.0
    magnitude_std: float = 0.5
    probability: float = 0.5
    operations: tuple[str, ...] = SETS["all"]
    fill: tuple[int, ...] = (128,)

    def __post_init__(self):
        fits = {
            "num_ops": self.num_ops >= 0,
            "magnitude": 0 <= self.magnitude <= MAX_MAGNITUDE,
            "magnitude_std": 0 <= self.magnitude_std < float("inf"),
            "probability": 0 <= self.probability <= 1,
            "operations": self.operations and set(self.operations) <= set(OPERATIONS),
            "fill": all(0 <= level <= 255 for level in self.fill),
        }
        for name, fit in fits.items():
            if not fit:
                raise ValueError(f"RandAugment {name}={getattr(self, name)!r} is out of range")


def rand_augment(image, settings, rng):
    """Returns the image after randomly drawn operations.

    Args:
      image: uint8 [H, W, C], C 1 or 3.
      settings: a `RandAugment`.
      rng: `numpy.random.Generator`.
    """
    drawn = rng.integers(len(settings.operations), size=settings.num_ops).tolist()
    operations = [settings.operations[index] for index in drawn]
    operations = [name for name in operations if rng.random() < settings.probability]
    if not operations:
        return image
    picture, fill = to_pillow(image), _fill(settings.fill, image.shape[-1])
    for name in operations:
        strength = random_strength(settings, rng)
        picture = OPERATIONS[name](picture, strength, rng, fill)
    return from_pillow(picture)


def _fill(levels, channels):
    """A colour as Pillow takes it: one level for grey images, else one for each channel."""
    if channels == 1:
        return levels[0]
    return levels * channels if len(levels) == 1 else levels


def random_strength(settings, rng):
    """Returns a strength in [0, 1]: the magnitude with its noise, divided by 10.

    Args:
      settings: a `RandAugment`.
      rng: `numpy.random.Generator`.
    """
    magnitude = rng.normal(settings.magnitude, settings.magnitude_std)
    return min(max(magnitude, 0), MAX_MAGNITUDE) / MAX_MAGNITUDE
