import io
import pickle
import struct
import zlib

import image_files
import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from snnvit_jax.data import decode
from snnvit_jax.data.decode import DamagedImage, decode_image

KINDS = image_files.every_kind()
PICTURE = image_files.picture()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_becomes_8_bit_pixels(kind, channels):
    image = decode_image(KINDS[kind], kind, channels)
    assert image.dtype == np.uint8
    assert image.flags["C_CONTIGUOUS"]
    assert image.shape[-1] == channels
    with Image.open(io.BytesIO(KINDS[kind])) as original:
        upright = ImageOps.exif_transpose(original)
    assert image.shape[:2] == (upright.height, upright.width)


@pytest.mark.parametrize("kind", ["rgb.png", "rgba.png", "rgb.bmp", "rgb.tif", "rgb.ppm"])
def test_lossless_files_arrive_unchanged(kind):
    np.testing.assert_array_equal(decode_image(KINDS[kind], kind), PICTURE)


@pytest.mark.parametrize("kind", ["rgb.JPEG", "progressive.jpg", "rgb.WebP"])
def test_jpeg_and_webp_are_pillows(kind):
    with Image.open(io.BytesIO(KINDS[kind])) as image:
        np.testing.assert_array_equal(decode_image(KINDS[kind], kind), np.asarray(image))


def test_grey_becomes_equal_channels_and_colour_becomes_luma():
    grey = decode_image(KINDS["grey.jpeg"], "", 1)
    np.testing.assert_array_equal(
        decode_image(KINDS["grey.jpeg"], "", 3), np.repeat(grey, 3, axis=-1)
    )
    luma = PICTURE @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode_image(KINDS["rgb.png"], "", 1)[..., 0] - luma).max() <= 0.51


@pytest.mark.parametrize("adobe", [True, False])
@pytest.mark.parametrize("inks", [(0, 255, 255, 0), (200, 0, 30, 0), (0, 40, 160, 90)])
def test_cmyk_follows_its_formula_with_either_polarity(inks, adobe):
    *colours, key = inks
    expected = [(255 - colour) * (255 - key) / 255 for colour in colours]
    found = decode_image(image_files.cmyk_jpeg(inks, adobe), "cmyk")
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=3)


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("PNG", {}),
        ("PNG", {"transparency": 3}),
        ("PNG", {"transparency": b"\x00\x80\xff"}),
        ("GIF", {}),
        ("GIF", {"transparency": 3}),
    ],
)
def test_palette_colours_stay_even_where_transparent(file_format, options):
    image = Image.fromarray(PICTURE).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    found = decode_image(image_files.encode(image, file_format, **options), "palette")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_is_dropped(mode):
    opaque = Image.fromarray(PICTURE).convert(mode)
    clear = opaque.copy()
    clear.putalpha(Image.fromarray(np.arange(24 * 40, dtype=np.uint8).reshape(24, 40)))
    a, b = (decode_image(image_files.encode(image), mode) for image in (opaque, clear))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_levels_are_scaled_not_clipped(file_format):
    levels = np.append(np.arange(0, 65536, 13), [255, 256, 65534, 65535]).astype(np.uint16)
    data = image_files.encode(levels[None, :], file_format)
    expected = np.rint(levels / 257).astype(np.uint8)
    assert expected[-1] == 255
    np.testing.assert_array_equal(decode_image(data, "deep", 1)[0, :, 0], expected)
    np.testing.assert_array_equal(decode_image(data, "deep", 3)[0, :, 2], expected)


def test_1_bit_images_are_black_and_white():
    bits = np.random.default_rng(0).random((9, 13)) < 0.5
    found = decode_image(image_files.encode(Image.fromarray(bits)), "bits", 1)
    np.testing.assert_array_equal(found[..., 0], np.where(bits, 255, 0))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, file_format):
    data = image_files.rotated(PICTURE, orientation, file_format)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(decode_image(data, "rotated"), expected)


# Where EXIF says that the first row and column of what is stored lie in the scene.
@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, (0, 0)), (2, (0, -1)), (3, (-1, -1)), (4, (-1, 0))]
)
def test_exif_names_the_corner_of_the_first_pixel(orientation, corner):
    found = decode_image(image_files.rotated(PICTURE, orientation, "PNG"), "rotated")
    np.testing.assert_array_equal(found[corner], PICTURE[0, 0])
    turned = decode_image(image_files.rotated(PICTURE, 6, "PNG"), "rotated")
    np.testing.assert_array_equal(turned, np.rot90(PICTURE, -1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_leaves_the_pixels():
    data = image_files.encode(PICTURE, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    np.testing.assert_array_equal(decode_image(data, ""), decode_image(KINDS["rgb.JPEG"], ""))


def test_of_an_animation_the_first_picture_counts():
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    data = image_files.encode(first, "GIF", save_all=True, append_images=[second])
    np.testing.assert_array_equal(decode_image(data, "gif")[0, 0], [255, 0, 0])


DAMAGED = (
    image_files.every_damage()
    | {
        "header_only.png": KINDS["rgb.png"][:40],
        "garbled.png": KINDS["rgb.png"][:60] + bytes(40) + KINDS["rgb.png"][100:],
        "no_width.png": KINDS["rgb.png"][:16] + bytes(4) + KINDS["rgb.png"][20:],
        "no_pixels.ppm": b"P6 0 0 255\n",
        "no_pixels.bmp": KINDS["rgb.bmp"][:18] + bytes(8) + KINDS["rgb.bmp"][26:],
        "floats.tif": image_files.encode(Image.new("F", (4, 4), 0.5), "TIFF"),
        "program.eps": image_files.encode(Image.new("RGB", (4, 4)), "EPS"),
    }
    | {f"half.{name}": KINDS[name][: len(KINDS[name]) // 2] for name in KINDS}
)


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_named(name):
    with pytest.raises(DamagedImage, match=f"^a/{name} is damaged: .+"):
        decode_image(DAMAGED[name], f"a/{name}")


@pytest.mark.parametrize("limit", [959, 479])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_are_damage(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # of 24 x 40
    with pytest.raises(DamagedImage, match="bomb is damaged: .*960|40x24"):
        decode_image(KINDS["rgb.png"], "bomb")


def bomb(width, height):
    """A PNG file of a few bytes that says it has so many pixels, its checksums right."""
    chunks = {
        b"IHDR": struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(b"\0"),
    }
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("size", [(100_000, 100_000), (1, 2**31 - 1), (10_000, 9_000), (2**30, 1)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_before_it_is_decoded(size, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(DamagedImage, match="^a/bomb.png is damaged: .*(pixels|size)"):
        decode_image(bomb(*size), "a/bomb.png")


@pytest.mark.parametrize("kind", ["rgb.png", "rgb.JPEG", "rgb.WebP", "palette.gif", "rgb.tif"])
@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:Corrupt EXIF")
def test_a_file_cut_anywhere_is_damaged_or_complete(kind):
    data, damaged = KINDS[kind], 0
    whole = decode_image(data, kind)
    lengths = range(0, len(data), max(1, len(data) // 150))
    for length in lengths:
        try:
            # Checksums and trailers at the very end may be missing, but no pixel.
            np.testing.assert_array_equal(decode_image(data[:length], kind), whole)
        except DamagedImage:
            damaged += 1
    assert damaged > len(lengths) / 2


@pytest.mark.parametrize("kind", ["rgb.png", "rgb.JPEG", "palette.gif", "rgb.tif", "rotated.JPG"])
@pytest.mark.filterwarnings("ignore")
def test_wrong_bytes_raise_nothing_but_damaged_image(kind):
    rng, damaged = np.random.default_rng(0), 0
    for _ in range(200):
        data = np.frombuffer(KINDS[kind], np.uint8).copy()
        data[rng.integers(len(data), size=3)] = rng.integers(256, size=3)
        try:
            image = decode_image(data.tobytes(), kind)
            assert image.dtype == np.uint8
            assert image.shape[-1] == 3
        except DamagedImage as error:
            assert str(error).startswith(kind)
            damaged += 1
    assert damaged


def test_running_out_of_memory_is_not_the_fault_of_the_image(monkeypatch):
    def fail(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(decode.Image, "open", fail)
    with pytest.raises(MemoryError):
        decode_image(KINDS["rgb.png"], "")


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="channels=4 must be 1 or 3"):
        decode_image(KINDS["rgb.png"], "", 4)


def test_damaged_image_crosses_the_border_between_processes():
    error = pickle.loads(pickle.dumps(DamagedImage("a.jpg is damaged: empty")))
    assert isinstance(error, ValueError)
    assert str(error) == "a.jpg is damaged: empty"
