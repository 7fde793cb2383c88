import numpy as np
import pytest
from PIL import Image

from snnvit_jax.data import transforms


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_resize_is_pillows_bicubic(image, channels):
    image = image[..., :channels]
    expected = [
        np.asarray(Image.fromarray(image[..., c]).resize((20, 24), Image.Resampling.BICUBIC))
        for c in range(channels)
    ]
    np.testing.assert_array_equal(transforms.resize(image, (24, 20)), np.stack(expected, -1))


def test_resize_to_the_same_size_changes_nothing(image):
    assert transforms.resize(image, (12, 10)) is image


def test_every_crop_is_a_window_of_the_padded_image(image):
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    windows = {padded[i : i + 12, j : j + 10].tobytes(): (i, j) for i in range(5) for j in range(5)}
    rng = np.random.default_rng(1)
    seen = {windows[transforms.random_crop(image, 2, rng).tobytes()] for _ in range(400)}
    assert len(seen) == 25


def test_half_of_the_images_are_mirrored(image):
    rng = np.random.default_rng(2)
    flipped = [transforms.random_flip(image, rng)[0, 0, 0] == image[0, -1, 0] for _ in range(1000)]
    assert 430 < sum(flipped) < 570


def test_normalize_follows_its_definition(image):
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    expected = (image / 255.0 - mean) / std
    found = transforms.normalize(image, mean, std)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_augment_is_a_function_of_image_and_generator(image):
    augment = transforms.Augment(transforms.Preprocess((12, 12), (0.5,), (0.5,)), 2, True)
    a, b, c = (
        augment({"image": image, "label": 3}, np.random.default_rng(seed)) for seed in (1, 1, 5)
    )
    np.testing.assert_array_equal(a["image"], b["image"])
    assert not np.array_equal(a["image"], c["image"])
    assert a["image"].shape == (12, 12, 3)
    assert a["label"] == 3
