"""Image transforms: pure functions of an image (and a random generator) on the host.

Crops, flips and sizes have the meaning of torchvision's transforms, whose Pillow code path the
published recipes use; the rectangles of random erasing have that of timm.
"""

import math

import numpy as np
from PIL import Image

# Of an image in between, which may be far larger than what is resized and what comes of it (a line
# of 4000 pixels is a million long with its shorter side at 256): more than this, and than so many
# times what is given and asked for, is not computed.
MOST_PIXELS, MOST_TIMES = 1 << 24, 4
CROP_ATTEMPTS = 10
ERASING_ATTEMPTS = 10
ERASING_AREA = (0.02, 1 / 3)
ERASING_ASPECT = (0.3, 1 / 0.3)


def to_pillow(image):
    """Returns an image as a `PIL.Image.Image`, of mode L or RGB.

    Args:
      image: uint8 [H, W, C], C 1 or 3.
    """
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def from_pillow(image):
    """Returns uint8 [H, W, C] from a `PIL.Image.Image` of mode L or RGB.

    Args:
      image: the image.
    """
    return np.asarray(image).reshape(image.height, image.width, -1)


def resize(image, size):
    """Returns the image at another size, bicubic, or itself if it has that size already.

    Args:
      image: uint8 [H, W, C], C 1 or 3.
      size: (height, width).
    """
    if image.shape[:2] == tuple(size):
        return image
    picture = to_pillow(image)
    if image.shape[0] * size[1] > _most_pixels(image, size):  # rows come first, and all are kept
        picture = picture.resize((image.shape[1], size[0]), Image.Resampling.BICUBIC)
    return from_pillow(picture.resize(size[::-1], Image.Resampling.BICUBIC))


def resize_shorter(image, size):
    """Returns the image with its shorter side at a size, bicubic, the longer side in proportion.

    Args:
      image: uint8 [H, W, C], C 1 or 3.
      size: pixels of the shorter side, >= 1; the longer one is rounded down.
    """
    return resize(image, _in_proportion(image, size))


def center_crop(image, size):
    """Returns the middle of an image.

    Args:
      image: [H, W, C].
      size: (height, width); a margin that cannot be halved is rounded to the even half.

    Raises:
      ValueError: if the image is smaller.
    """
    top, left = _middle(image.shape[:2], size)
    return image[top : top + size[0], left : left + size[1]]


def resize_shorter_and_crop(image, shorter, size):
    """Returns the middle of the image with its shorter side at a size.

    That is `center_crop` of `resize_shorter`. Of an image so long that the whole would be too large
    (`MOST_PIXELS`), only the middle is computed: its pixels are the same to rounding.

    Args:
      image: uint8 [H, W, C], C 1 or 3.
      shorter: pixels of the shorter side before the crop.
      size: (height, width) of the crop.

    Raises:
      ValueError: if the resized image is smaller.
    """
    whole = _in_proportion(image, shorter)
    if math.prod(whole) <= _most_pixels(image, size):
        return center_crop(resize(image, whole), size)
    (top, left), (height, width) = _middle(whole, size), size
    y, x = (have / want for have, want in zip(image.shape, whole, strict=False))
    box = (left * x, top * y, (left + width) * x, (top + height) * y)
    return from_pillow(to_pillow(image).resize(size[::-1], Image.Resampling.BICUBIC, box=box))


def _most_pixels(image, size):
    """Pixels that an image in between may have."""
    return max(MOST_PIXELS, MOST_TIMES * max(math.prod(image.shape[:2]), math.prod(size)))


def _in_proportion(image, shorter):
    """(height, width) of an image whose shorter side is resized; the longer is rounded down."""
    H, W, _ = image.shape
    return (shorter, shorter * W // H) if H <= W else (shorter * H // W, shorter)


def _middle(have, want):
    """(top, left) of the middle part of an image."""
    margins = [whole - part for whole, part in zip(have, want, strict=True)]
    if min(margins) < 0:
        raise ValueError(f"an image of {tuple(have)} has no middle of size={want}")
    return [round(margin / 2) for margin in margins]


def random_crop(image, padding, rng):
    """Returns a crop of the image's own size at a random place of the zero-padded image.

    Args:
      image: [H, W, C].
      padding: pixels added on every side, >= 0.
      rng: `numpy.random.Generator`.
    """
    top, left = (rng.integers(0, 2 * padding + 1, size=2) - padding).tolist()
    moved = np.zeros_like(image)
    rows, cols = (_overlap(*pair) for pair in zip((top, left), image.shape, strict=False))
    moved[rows[0], cols[0]] = image[rows[1], cols[1]]
    return moved


def _overlap(shift, length):
    """Where a window moved by `shift` sees the image: (slice of the window, slice of the image)."""
    start = max(shift, 0)
    stop = max(start, min(length + shift, length))
    return slice(start - shift, stop - shift), slice(start, stop)


def random_resized_crop(image, size, scale, ratio, rng):
    """Returns a part of the image of random area and aspect, at another size, bicubic.

    (Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6.)

    Args:
      image: uint8 [H, W, C], C 1 or 3.
      size: (height, width).
      scale: see `crop_box`.
      ratio: see `crop_box`.
      rng: `numpy.random.Generator`.
    """
    top, left, height, width = crop_box(*image.shape[:2], scale, ratio, rng)
    # Cut first: resizing with a box would look at the pixels around it, too.
    return resize(image[top : top + height, left : left + width], size)


def crop_box(height, width, scale, ratio, rng):
    """Returns (top, left, height, width) of a random part of an image.

    Area and aspect are drawn until such a box fits, at a place drawn evenly; after ten attempts it
    is the largest middle part whose aspect is allowed.

    Args:
      height: of the image, in pixels.
      width: likewise.
      scale: (lowest, highest) share of the image's area, drawn evenly, in (0, 1].
      ratio: (lowest, highest) width / height, its logarithm drawn evenly, > 0.
      rng: `numpy.random.Generator`.
    """
    for _ in range(CROP_ATTEMPTS):
        h, w = _random_sides(height * width, scale, ratio, rng)
        if 0 < w <= width and 0 < h <= height:
            top = rng.integers(0, height - h + 1)
            return int(top), int(rng.integers(0, width - w + 1)), h, w
    h, w = height, width
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def _random_sides(pixels, scale, ratio, rng):
    """Height and width of a box of random area and width / height."""
    area = pixels * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    return round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))


def random_flip(image, rng):
    """Returns the image or, with probability 1/2, its mirror image.

    Args:
      image: [H, W, C].
      rng: `numpy.random.Generator`.
    """
    if rng.random() >= 0.5:
        return image
    flipped = np.empty_like(image)
    for channel in range(image.shape[-1]):  # four times as fast as all channels at once
        flipped[..., channel] = image[:, ::-1, channel]
    return flipped


def random_rectangle(size, probability, rng):
    """Returns the rectangle of an image to be erased: int32 [4], top, left, height, width.

    Its share of the area is drawn evenly from `ERASING_AREA`, the logarithm of its height / width
    evenly from `ERASING_ASPECT`, until it is smaller than the image both ways; after ten attempts
    nothing is erased. (Zhong et al., "Random erasing data augmentation", AAAI 2020, algorithm 1.)

    Args:
      size: (height, width) of the image.
      probability: in [0, 1]; otherwise nothing is erased, and all four are 0.
      rng: `numpy.random.Generator`.
    """
    H, W = size
    attempts = ERASING_ATTEMPTS if rng.random() < probability else 0
    for _ in range(attempts):
        w, h = _random_sides(H * W, ERASING_AREA, ERASING_ASPECT, rng)  # its aspect is h / w
        if h < H and w < W:
            top, left = rng.integers(0, H - h + 1), rng.integers(0, W - w + 1)
            return np.array([top, left, h, w], np.int32)
    return np.zeros(4, np.int32)
