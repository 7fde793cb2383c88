"""Image files of every kind, as bytes."""

import io

import numpy as np
from PIL import Image, ImageChops


def picture(height=24, width=40, channels=3):
    """A smooth image without any symmetry, uint8 [H, W, channels]."""
    y, x = np.mgrid[0:height, 0:width]
    levels = [80 + 3 * x + 2 * y, 200 - 4 * x + y, 20 + 5 * y + x]
    return np.clip(np.stack(levels, -1), 0, 255).astype(np.uint8)[..., :channels]


def encode(image, file_format="PNG", **options):
    """Bytes of a file; `image` is an array or an image of Pillow."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(
            image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
        )
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def cmyk_jpeg(inks, adobe):
    """A JPEG of one colour, inks in [0, 255]; Adobe's files hold them inverted, others plain."""
    image = Image.new("CMYK", (16, 16), inks)
    if adobe:
        return encode(image, "JPEG", quality=100)
    data = encode(ImageChops.invert(image), "JPEG", quality=100)
    start = data.index(b"\xff\xee")  # APP14, by which Adobe's files are known
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


def rotated(image, orientation, file_format):
    """A file whose EXIF says how to turn it upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(image, file_format, exif=exif)


def every_kind():
    """{name: bytes} of intact files."""
    rgb = Image.fromarray(picture())
    deep = (np.arange(24 * 40, dtype=np.uint16) * 68).reshape(24, 40)
    return {
        "rgb.JPEG": encode(rgb, "JPEG"),
        "progressive.jpg": encode(rgb, "JPEG", progressive=True),
        "grey.jpeg": encode(rgb.convert("L"), "JPEG"),
        "cmyk.jpg": cmyk_jpeg((0, 200, 100, 20), adobe=True),
        "plain_cmyk.jpg": cmyk_jpeg((0, 200, 100, 20), adobe=False),
        "rotated.JPG": rotated(picture(), 6, "JPEG"),
        "rgb.png": encode(rgb),
        "palette.PNG": encode(rgb.quantize(16), transparency=b"\x00\x80"),
        "rgba.png": encode(rgb.convert("RGBA")),
        "grey_alpha.png": encode(rgb.convert("LA")),
        "one_bit.png": encode(rgb.convert("1")),
        "sixteen_bit.png": encode(deep),
        "rgb.WebP": encode(rgb, "WEBP"),
        "rgb.bmp": encode(rgb, "BMP"),
        "palette.gif": encode(rgb.quantize(16), "GIF"),
        "rgb.tif": encode(rgb, "TIFF"),
        "rgb.ppm": encode(rgb, "PPM"),
    }


def every_damage():
    """{name: bytes} of files that cannot be decoded."""
    jpeg = encode(picture(), "JPEG")
    return {
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "empty.jpg": b"",
        "text.jpg": b"<html>404 Not Found</html>",
        "wrong_header.jpg": b"\0\0\0\0" + jpeg[4:],
    }
