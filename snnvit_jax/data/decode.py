"""From the bytes of an image file to pixels: the same array wherever the bytes were kept."""

import io

import numpy as np
from PIL import Image, ImageChops

# Formats that are tried. Others are left out, because some of them run outside programs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF")

_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
_EXIF_ORIENTATION = 0x0112
# EXIF 2.32, table 6: what makes an image upright, for each orientation but the upright 1.
_UPRIGHT = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}


class DamagedImage(ValueError):  # noqa: N818 (it says what is the matter)
    """An image that cannot be decoded; the message names it and says why."""


def decode_image(data, name, channels=3):
    """Returns the pixels of an image file, upright, 8 bits deep, grey or RGB.

    Palettes become colours, CMYK becomes RGB (with the inverted inks of Adobe files or plain ones),
    16-bit grey levels are divided by 257 and rounded, transparency is dropped, 1-bit images have
    the levels 0 and 255, and of an animation the first picture counts. Colours become grey by
    ITU-R 601, and grey becomes three equal channels. EXIF orientation is applied; where it cannot
    be read, the image is taken to be upright.

    Damage that a format cannot show goes unseen: JPEG has no checksums.

    Args:
      data: bytes of a file in one of `FORMATS`.
      name: what to call the image in an error, such as its path.
      channels: 1 or 3.

    Returns:
      uint8 [H, W, channels].

    Raises:
      DamagedImage: if the bytes are empty, cut short, no image, an image without pixels or with
        suspiciously many (`PIL.Image.MAX_IMAGE_PIXELS`), or deeper than can be told.
      ValueError: for other channels.
    """
    if channels not in (1, 3):
        raise ValueError(f"{channels=} must be 1 or 3")
    if not data:
        raise DamagedImage(f"{name} is damaged: it is empty")
    image, orientation = _load(data, name)
    pixels = _pixels(image, name, "L" if channels == 1 else "RGB")
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if pixels.shape[-1] != channels:
        pixels = np.repeat(pixels, channels, axis=-1)
    if orientation in _UPRIGHT:
        pixels = np.ascontiguousarray(_UPRIGHT[orientation](pixels))
    return pixels


def _load(data, name):
    """Returns (image with all of its pixels read, EXIF orientation)."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.size)
            image.load()
            # Read last: for formats that Pillow turns upright itself, nothing is left to do.
            return image, _orientation(image)
    except Image.UnidentifiedImageError as error:
        raise DamagedImage(
            f"{name} is damaged: not an image, its first bytes are {data[:12]!r}"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a decoder may stumble over damaged bytes in any way
        raise DamagedImage(f"{name} is damaged: {error}") from error


def _check_size(size):
    limit = Image.MAX_IMAGE_PIXELS
    width, height = size
    if not width or not height:
        raise ValueError(f"{width}x{height} pixels")
    if limit is not None and width * height > limit:
        raise ValueError(f"{width}x{height} pixels are more than the {limit} allowed")


def _orientation(image):
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing about the pixels
        return 1


def _pixels(image, name, mode):
    """Returns uint8 [H, W] or [H, W, 3] from a loaded image of any mode."""
    if image.mode.startswith("I;16"):
        return _to_8_bits(np.asarray(image))
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # 16 bits, kept in 32
        return _to_8_bits(np.asarray(image))
    if image.mode not in _EIGHT_BIT_MODES:
        raise DamagedImage(f"{name} is damaged: mode {image.mode} has no known range of values")
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes every CMYK JPEG for an inverted one
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _to_8_bits(grey):
    return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
