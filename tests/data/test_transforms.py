import math

import image_files
import numpy as np
import pytest
from PIL import Image

from snnvit_jax.common.pixels import Normalization
from snnvit_jax.data.augment import transforms
from snnvit_jax.data.augment.pipeline import Preprocess

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)


def bicubic(image, size):
    """Each channel resized by Pillow on its own."""
    channels = [Image.fromarray(image[..., c]) for c in range(image.shape[-1])]
    resized = [channel.resize(size[::-1], Image.Resampling.BICUBIC) for channel in channels]
    return np.stack([np.asarray(channel) for channel in resized], -1)


@pytest.mark.parametrize("channels", [1, 3])
def test_pillow_and_back(image, channels):
    picture = transforms.to_pillow(image[..., :channels])
    assert picture.mode == {1: "L", 3: "RGB"}[channels]
    np.testing.assert_array_equal(transforms.from_pillow(picture), image[..., :channels])


@pytest.mark.parametrize("channels", [1, 3])
def test_resize_is_pillows_bicubic(image, channels):
    image = image[..., :channels]
    np.testing.assert_array_equal(transforms.resize(image, (24, 20)), bicubic(image, (24, 20)))


def test_resize_to_the_same_size_changes_nothing(image):
    assert transforms.resize(image, (12, 10)) is image


@pytest.mark.parametrize("shape", [(12, 10), (10, 12), (50, 7), (7, 50), (9, 9), (375, 500)])
@pytest.mark.parametrize("size", [1, 7, 9, 20])
def test_resize_shorter_keeps_proportions(shape, size):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    resized = transforms.resize_shorter(image, size)
    assert min(resized.shape[:2]) == size
    assert max(resized.shape[:2]) == int(size * max(shape) / min(shape))
    assert (resized.shape[0] > resized.shape[1]) <= (shape[0] > shape[1])
    np.testing.assert_array_equal(resized, bicubic(image, resized.shape[:2]))


# Margins of 0 to 5 pixels, halved and rounded to the even number.
@pytest.mark.parametrize(("margin", "start"), [*enumerate([0, 0, 1, 2, 2, 2])])
def test_center_crop_starts_at_half_the_margin(image, margin, start):
    found = transforms.center_crop(image, (12 - margin, 10 - margin))
    expected = image[start : start + 12 - margin, start : start + 10 - margin]
    np.testing.assert_array_equal(found, expected)


def test_a_middle_larger_than_the_image_is_refused(image):
    with pytest.raises(ValueError, match=r"\(12, 10\) has no middle of size=\(12, 11\)"):
        transforms.center_crop(image, (12, 11))


# ---------------------------------------------------------------- very long images

ORDINARY = [(375, 500), (500, 375), (64, 64), (20, 400), (400, 20), (1, 400), (300, 1)]


def smooth(shape):
    """An image whose resizing does not depend on how numbers in between are rounded."""
    return image_files.picture(*shape)


@pytest.mark.parametrize("shape", ORDINARY)
@pytest.mark.parametrize(("shorter", "size"), [(73, (64, 64)), (32, (32, 32)), (9, (7, 8))])
def test_resizing_and_cropping_at_once_is_one_after_the_other(shape, shorter, size):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    expected = transforms.center_crop(transforms.resize_shorter(image, shorter), size)
    found = transforms.resize_shorter_and_crop(image, shorter, size)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", ORDINARY)
@pytest.mark.parametrize(("shorter", "size"), [(73, (64, 64)), (32, (32, 32)), (9, (7, 8))])
def test_the_middle_of_a_very_long_image_is_that_of_the_whole(shape, shorter, size, monkeypatch):
    image = smooth(shape)
    expected = transforms.resize_shorter_and_crop(image, shorter, size)
    monkeypatch.setattr(transforms, "_most_pixels", lambda *_: 1)
    found = transforms.resize_shorter_and_crop(image, shorter, size)
    assert found.shape == (*size, 3)
    assert np.abs(found.astype(int) - expected).max() <= 2  # rounded twice


@pytest.mark.parametrize("shape", ORDINARY)
def test_a_very_tall_image_is_resized_like_any_other(shape, monkeypatch):
    image = smooth(shape)
    expected = transforms.resize(image, (24, 20))
    monkeypatch.setattr(transforms, "_most_pixels", lambda *_: 1)
    assert np.abs(transforms.resize(image, (24, 20)).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("shape", [(1, 4000), (4000, 1), (1, 8000), (1, 500_000), (500_000, 1)])
@pytest.mark.parametrize("crop_fraction", [None, 0.875])
def test_no_image_becomes_far_larger_on_its_way(shape, crop_fraction, monkeypatch):
    largest = [0]
    resize = Image.Image.resize

    def spy(image, size, *args, **kwargs):
        # What is resized first, rows or columns, differs between versions of Pillow.
        rows = image.height if kwargs.get("box") is None else kwargs["box"][3] - kwargs["box"][1]
        largest[0] = max(largest[0], size[0] * size[1], size[0] * rows)
        return resize(image, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", spy)
    preprocess = Preprocess((224, 224), (0.5,), (0.5,), crop_fraction)
    example = preprocess({"image": np.full((*shape, 3), 255, np.uint8), "label": 1})
    np.testing.assert_array_equal(example["image"], np.full((224, 224, 3), 255))
    assert 0 < largest[0] <= transforms.MOST_PIXELS


@pytest.mark.parametrize("shape", [(3000, 4000), (4000, 3000), (600, 1600), (8000, 9000)])
def test_ordinary_images_are_resized_as_a_whole(shape, monkeypatch):
    sizes = []

    def spy(image, size, *args, **kwargs):
        sizes.append((size, kwargs))
        return Image.new("L", size)

    monkeypatch.setattr(Image.Image, "resize", spy)
    image = np.zeros((*shape, 1), np.uint8)
    for size in (32, 224, 2048, 4096):
        sizes.clear()
        transforms.resize_shorter_and_crop(image, math.floor(size / 0.875), (size, size))
        assert sizes[0][1] == {}
        sizes.clear()
        transforms.resize(image, (size, size))
        assert sizes[0][0] == (size, size)


def test_a_middle_larger_than_a_very_long_image_is_refused(monkeypatch):
    monkeypatch.setattr(transforms, "_most_pixels", lambda *_: 1)
    with pytest.raises(ValueError, match=r"\(4, 40\) has no middle of size=\(5, 5\)"):
        transforms.resize_shorter_and_crop(np.zeros((1, 10, 3), np.uint8), 4, (5, 5))


# With the larger padding a window may miss the image altogether.
@pytest.mark.parametrize(("padding", "different"), [(2, 25), (15, 120)])
def test_every_crop_is_a_window_of_the_padded_image(image, padding, different):
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    rng = np.random.default_rng(1)
    windows = {
        padded[i : i + 12, j : j + 10].tobytes()
        for i in range(2 * padding + 1)
        for j in range(2 * padding + 1)
    }
    seen = {transforms.random_crop(image, padding, rng).tobytes() for _ in range(400)}
    assert seen <= windows
    assert len(seen) >= different


def boxes(height, width, scale, ratio, count=3000):
    rng = np.random.default_rng(0)
    drawn = [transforms.crop_box(height, width, scale, ratio, rng) for _ in range(count)]
    return np.array(drawn, float).T


def assert_uniform(values, low, high):
    """Mean, variance and range of a sample agree with an even distribution."""
    span = high - low
    assert low - 0.01 * span <= values.min() < low + 0.02 * span
    assert high - 0.02 * span < values.max() <= high + 0.01 * span
    assert abs(values.mean() - (low + high) / 2) < 4 * span / np.sqrt(12 * len(values))
    assert abs(values.var() / (span**2 / 12) - 1) < 0.1


def test_crop_boxes_have_the_distribution_they_should():
    # Boxes of at most half of a square always fit, so that nothing is drawn twice.
    _, _, height, width = boxes(1000, 1000, (0.1, 0.5), RATIO)
    assert_uniform(height * width / 1e6, 0.1, 0.5)
    assert_uniform(np.log(width / height), *np.log(RATIO))
    top, left, height, width = boxes(1000, 1000, (0.25, 0.25), (1.0, 1.0))
    assert set(height) == set(width) == {500}
    for start in (top, left):
        assert_uniform(start, 0, 500)
    assert abs(np.corrcoef(top, left)[0, 1]) < 0.06


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (40, 300), (11, 11)])
def test_crop_boxes_lie_inside_and_keep_their_limits(shape):
    top, left, height, width = boxes(*shape, SCALE, RATIO, 500)
    assert top.min() >= 0
    assert left.min() >= 0
    assert (top + height).max() <= shape[0]
    assert (left + width).max() <= shape[1]
    # Both sides are rounded to whole pixels.
    assert ((height + 0.5) * (width + 0.5)).min() >= 0.08 * np.prod(shape)
    assert ((width - 0.5) / (height + 0.5)).max() <= 4 / 3
    assert ((width + 0.5) / (height - 0.5)).min() >= 3 / 4


@pytest.mark.parametrize(
    ("shape", "ratio", "box"),
    [
        ((30, 90), (0.75, 4 / 3), (0, 25, 30, 40)),  # too wide: 40 / 30 is the widest
        ((90, 30), (0.75, 4 / 3), (25, 0, 40, 30)),
        ((31, 31), (1.0, 1.0), (0, 0, 31, 31)),
        ((30, 90), (1.0, 1.0), (0, 30, 30, 30)),
        ((30, 40), (2.0, 2.0), (5, 0, 20, 40)),
    ],
)
def test_where_no_box_fits_it_is_the_largest_middle(shape, ratio, box):
    assert transforms.crop_box(*shape, (1.0, 1.0), ratio, np.random.default_rng(0)) == box


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_random_resized_crop_is_cutting_then_resizing(seed, channels):
    image = np.random.default_rng(0).integers(0, 256, (33, 45, channels), np.uint8)
    top, left, height, width = transforms.crop_box(
        33, 45, SCALE, RATIO, np.random.default_rng(seed)
    )
    expected = bicubic(image[top : top + height, left : left + width], (16, 14))
    rng = np.random.default_rng(seed)
    found = transforms.random_resized_crop(image, (16, 14), SCALE, RATIO, rng)
    np.testing.assert_array_equal(found, expected)


def test_a_whole_image_of_the_right_size_is_left_alone(image):
    square = image[:10]
    rng = np.random.default_rng(0)
    whole = transforms.random_resized_crop(square, (10, 10), (1.0, 1.0), (1.0, 1.0), rng)
    np.testing.assert_array_equal(whole, square)


@pytest.mark.parametrize("channels", [1, 3])
def test_half_of_the_images_are_mirrored(image, channels):
    rng, image = np.random.default_rng(2), image[..., :channels]
    flipped = 0
    for _ in range(1000):
        found = transforms.random_flip(image, rng)
        mirrored = found is not image
        np.testing.assert_array_equal(found, image[:, ::-1] if mirrored else image)
        flipped += mirrored
    assert 430 < flipped < 570


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("own", [True, False])
def test_normalize_follows_its_definition(image, channels, own):
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    count = channels if own else 1
    image, mean, std = image[:, ::-1, :channels], mean[:count], std[:count]
    found = Normalization(mean, std)(image)
    assert found.dtype == np.float32
    expected = (image / 255.0 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def erased(shape, count, probability=1.0):
    """(top, left, height, width) of each rectangle that was erased."""
    rng = np.random.default_rng(0)
    drawn = [transforms.random_rectangle(shape, probability, rng) for _ in range(count)]
    assert {rectangle.dtype for rectangle in drawn} == {np.dtype(np.int32)}
    return np.array([rectangle for rectangle in drawn if rectangle[2:].all()], float).T


def test_erased_rectangles_have_the_distribution_they_should():
    # A tall or wide rectangle does not fit a square: the share is even only as far as all fit.
    _, _, height, width = erased((200, 200), 1500)
    share = height * width / 200**2
    assert 0.019 < share.min() < 0.025
    assert 0.32 < share.max() < 0.34
    small = share[share < 0.29]
    assert_uniform(small, 0.02, 0.29)
    aspects = np.log(height / width)[share < 0.29]
    assert_uniform(aspects, np.log(0.3), -np.log(0.3))


def test_erased_rectangles_lie_everywhere():
    top, left, height, width = erased((60, 90), 1500)
    for start, length, size in ((top, height, 60), (left, width, 90)):
        assert start.min() == 0
        assert (start + length).max() == size
        assert abs((start / (size - length)).mean() - 0.5) < 0.04


def test_as_many_images_are_erased_as_wanted():
    assert 0.2 < erased((16, 16), 1000, probability=0.25).shape[1] / 1000 < 0.3
    assert erased((16, 16), 100, probability=0.0).size == 0


def test_an_image_too_small_for_a_rectangle_stays_whole():
    assert erased((1, 1), 50).size == 0


@pytest.mark.parametrize(
    "transform",
    [
        lambda image, rng: transforms.random_crop(image, 3, rng),
        lambda image, rng: transforms.random_flip(image, rng),
        lambda image, rng: transforms.random_resized_crop(image, (8, 8), SCALE, RATIO, rng),
        lambda image, rng: transforms.random_rectangle(image.shape[:2], 0.5, rng),
    ],
)
def test_transforms_are_functions_of_image_and_generator(image, transform):
    before = image.copy()
    runs = [[transform(image, np.random.default_rng(seed)) for seed in range(20)] for _ in "ab"]
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len({result.tobytes() for result in runs[0]}) > 1
    np.testing.assert_array_equal(image, before)
