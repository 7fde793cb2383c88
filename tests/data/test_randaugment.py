import collections
import pickle

import image_files
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from snnvit_jax.data.augment import randaugment
from snnvit_jax.data.augment.randaugment import OPERATIONS, SETS, RandAugment, rand_augment

# Smooth and rough at once, so that no operation leaves it alone.
PICTURE = image_files.picture(20, 40) // 2 + np.random.default_rng(0).integers(
    0, 100, (20, 40, 3), np.uint8
)
FILL = (124, 116, 104)
BICUBIC = Image.Resampling.BICUBIC


def point(function):
    """An operation on single levels, by its definition."""
    table = np.array([function(level) for level in range(256)], np.uint8)
    return lambda image, s: table[np.asarray(image)]


def enhanced(enhancer):
    return lambda image, s: enhancer(image).enhance(max(0.1, 1 + 0.9 * s))


def affine(a, b, c, d, e, f, image):
    return image.transform(
        image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), BICUBIC, fillcolor=FILL
    )


# The result at a signed strength s.
DEFINITIONS = {
    "AutoContrast": lambda image, s: ImageOps.autocontrast(image),
    "Equalize": lambda image, s: ImageOps.equalize(image),
    "Invert": point(lambda level: 255 - level),
    "Rotate": lambda image, s: image.rotate(30 * s, BICUBIC, fillcolor=FILL),
    "Posterize": lambda image, s: point(
        lambda level: level - level % 2 ** (4 + int(4 * abs(s)))  # drops the lowest bits
    )(image, s),
    "Solarize": lambda image, s: point(
        lambda level: level if level < 256 - int(256 * abs(s)) else 255 - level
    )(image, s),
    "SolarizeAdd": lambda image, s: point(
        lambda level: min(255, level + int(110 * abs(s))) if level < 128 else level
    )(image, s),
    "Color": enhanced(ImageEnhance.Color),
    "Contrast": enhanced(ImageEnhance.Contrast),
    "Brightness": enhanced(ImageEnhance.Brightness),
    "Sharpness": enhanced(ImageEnhance.Sharpness),
    "ShearX": lambda image, s: affine(1, 0.3 * s, 0, 0, 1, 0, image),
    "ShearY": lambda image, s: affine(1, 0, 0, 0.3 * s, 1, 0, image),
    "TranslateXRel": lambda image, s: affine(1, 0, 0.45 * s * 40, 0, 1, 0, image),
    "TranslateYRel": lambda image, s: affine(1, 0, 0, 0, 1, 0.45 * s * 20, image),
}
UNSIGNED = ("AutoContrast", "Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd")


def operate(name, image, strength, seed=0, fill=FILL):
    result = OPERATIONS[name](image, strength, np.random.default_rng(seed), fill)
    return np.asarray(result)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("strength", [0.0, 0.37, 0.9, 1.0])
def test_operations_follow_their_definitions_with_either_sign(name, strength):
    image = Image.fromarray(PICTURE)
    expected = {np.asarray(DEFINITIONS[name](image, s)).tobytes() for s in (strength, -strength)}
    assert len(expected) == (1 if name in UNSIGNED or not strength else 2)
    found = {operate(name, image, strength, seed).tobytes() for seed in range(12)}
    assert found == expected


def test_all_fifteen_operations_and_the_published_five_for_cifar():
    assert set(SETS["all"]) == set(DEFINITIONS)
    assert len(SETS["all"]) == 15
    assert set(SETS["cifar"]) == {"Equalize", "Rotate", "ShearX", "TranslateXRel", "TranslateYRel"}


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"AutoContrast", "Equalize", "Invert"}))
def test_without_strength_nothing_happens(name):
    expected = PICTURE & 0xF0 if name == "Posterize" else PICTURE
    np.testing.assert_array_equal(operate(name, Image.fromarray(PICTURE), 0.0), expected)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_grey_images_fare_like_colour_images_of_equal_channels(name, seed):
    grey = PICTURE[..., 0]
    colour = np.repeat(grey[..., None], 3, -1)
    found = operate(name, Image.fromarray(grey), 0.8, seed, fill=99)
    expected = operate(name, Image.fromarray(colour), 0.8, seed, fill=(99,) * 3)
    np.testing.assert_array_equal(found, expected[..., 0])


def test_what_comes_in_from_outside_has_the_fill_colour():
    signs = set()
    for seed in range(8):
        moved = operate("TranslateXRel", Image.fromarray(PICTURE), 1.0, seed)  # by 18 of 40 pixels
        sign = 1 if (moved[:, -1] == FILL).all() else -1
        mirrored = (PICTURE, moved) if sign == 1 else (PICTURE[:, ::-1], moved[:, ::-1])
        np.testing.assert_array_equal(mirrored[1][:, 22:], np.broadcast_to(FILL, (20, 18, 3)))
        np.testing.assert_array_equal(mirrored[1][:, 1:20], mirrored[0][:, 19:38])
        signs.add(sign)
    assert signs == {1, -1}


@pytest.fixture
def drawn(monkeypatch):
    """Every (name, strength) that is carried out; the operations themselves do nothing."""
    found = []

    def recorder(name):
        def record(image, strength, rng, fill):
            found.append((name, strength))
            return image

        return record

    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, recorder(name))
    return found


def draw_many(count=3000, **settings):
    rng, settings = np.random.default_rng(0), RandAugment(**settings)
    for _ in range(count):
        assert rand_augment(PICTURE, settings, rng).shape == PICTURE.shape


@pytest.mark.parametrize("name", SETS)
def test_operations_are_drawn_evenly_with_their_probability(drawn, name):
    draw_many(num_ops=2, probability=0.3, operations=SETS[name])
    counts = collections.Counter(operation for operation, _ in drawn)
    expected = 3000 * 2 * 0.3 / len(SETS[name])
    assert set(counts) == set(SETS[name])
    assert all(abs(n - expected) < 4.5 * np.sqrt(expected) for n in counts.values())


def test_magnitudes_have_normal_noise(drawn):
    draw_many(num_ops=1, probability=1.0, magnitude=5.0, magnitude_std=0.5)
    strengths = np.array([strength for _, strength in drawn])
    assert abs(strengths.mean() - 0.5) < 0.004
    assert abs(strengths.std() - 0.05) < 0.003
    assert 0.14 < np.mean(strengths > 0.55) < 0.18  # a normal distribution has 0.159 there


def test_magnitudes_are_clipped(drawn):
    draw_many(num_ops=1, probability=1.0, magnitude=9.0, magnitude_std=10.0)
    strengths = np.array([strength for _, strength in drawn])
    assert (strengths.min(), strengths.max()) == (0, 1)
    assert abs(np.mean(strengths == 1) - 0.460) < 0.03  # P(normal > 0.1)
    assert abs(np.mean(strengths == 0) - 0.184) < 0.03  # P(normal < -0.9)


def test_without_noise_every_magnitude_is_the_same(drawn):
    draw_many(100, num_ops=3, probability=1.0, magnitude=7.0, magnitude_std=0.0)
    assert {strength for _, strength in drawn} == {0.7}
    assert len(drawn) == 300


def test_no_operation_leaves_the_image_alone():
    rng = np.random.default_rng(0)
    assert rand_augment(PICTURE, RandAugment(num_ops=0), rng) is PICTURE
    assert rand_augment(PICTURE, RandAugment(probability=0.0), rng) is PICTURE


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fill", [(7,), (7, 8, 9)])
def test_it_is_a_function_of_image_and_generator(channels, fill):
    image = PICTURE[..., :channels].copy()
    settings = RandAugment(probability=0.9, fill=fill[:channels])
    runs = [
        [rand_augment(image, settings, np.random.default_rng(seed)) for seed in range(40)]
        for _ in "ab"
    ]
    for a, b in zip(*runs, strict=True):
        assert a.dtype == np.uint8
        assert a.shape == image.shape
        np.testing.assert_array_equal(a, b)
    assert len({result.tobytes() for result in runs[0]}) > 20
    np.testing.assert_array_equal(image, PICTURE[..., :channels])


def test_operations_are_carried_out_one_after_the_other(monkeypatch):
    monkeypatch.setattr(randaugment, "random_strength", lambda settings, rng: 0.5)
    settings = RandAugment(num_ops=2, probability=1.0, operations=("Invert", "Solarize"))
    found = {
        rand_augment(PICTURE, settings, np.random.default_rng(seed)).tobytes() for seed in range(20)
    }
    invert, solarize = (DEFINITIONS[name] for name in settings.operations)
    pairs = [(first, second) for first in (invert, solarize) for second in (invert, solarize)]
    assert found == {second(first(PICTURE, 0.5), 0.5).tobytes() for first, second in pairs}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_ops", -1),
        ("magnitude", -0.1),
        ("magnitude", 10.5),
        ("magnitude", float("nan")),
        ("magnitude_std", -1.0),
        ("magnitude_std", float("inf")),
        ("probability", 1.1),
        ("operations", ()),
        ("operations", ("Invert", "Blur")),
        ("fill", (1, 2, 256)),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"RandAugment {name}=.* is out of range"):
        RandAugment(**{name: value})


def test_settings_can_be_pickled():
    settings = RandAugment(num_ops=1, operations=SETS["cifar"])
    assert pickle.loads(pickle.dumps(settings)) == settings
