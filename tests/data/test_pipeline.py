import pickle

import image_files
import numpy as np
import pytest
from ml_collections import config_dict
from PIL import Image

from snnvit_jax.data.augment import transforms
from snnvit_jax.data.augment.pipeline import Augment, Preprocess, create_augment, create_preprocess
from snnvit_jax.data.augment.randaugment import SETS, RandAugment, rand_augment

PICTURE = image_files.picture(24, 40)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def settings(**changes):
    """Settings of the data as the configuration holds them."""
    data = config_dict.ConfigDict(
        {
            "image_size": 16,
            "crop_padding": 0,
            "flip": False,
            "mean": MEAN,
            "std": STD,
            "crop_fraction": config_dict.placeholder(float),
            "random_resized_crop": False,
            "crop_scale": (0.08, 1.0),
            "crop_ratio": (3 / 4, 4 / 3),
            "randaugment": {
                "num_ops": 0,
                "magnitude": 9.0,
                "magnitude_std": 0.5,
                "probability": 0.5,
                "operations": "all",
            },
            "erasing_probability": 0.0,
            "erasing_fill": "zero",
        }
    )
    with data.ignore_type():
        data.update_from_flattened_dict(changes)
    return data


# What Spikformer was trained with on CIFAR and on ImageNet, and the usual padded crop.
RECIPES = {
    "cifar": {
        "flip": True,
        "random_resized_crop": True,
        "crop_scale": (1.0, 1.0),
        "crop_ratio": (1.0, 1.0),
        "randaugment.num_ops": 1,
        "randaugment.magnitude_std": 0.4,
        "randaugment.operations": "cifar",
        "erasing_probability": 0.25,
    },
    "imagenet": {
        "flip": True,
        "random_resized_crop": True,
        "crop_scale": (1.0, 1.0),
        "randaugment.num_ops": 2,
        "erasing_probability": 0.25,
        "erasing_fill": "noise",
    },
    "padded": {"flip": True, "crop_padding": 4},
    "none": {},
}


def by_hand(recipe, image, rng):
    """The published order of the transforms, written out."""
    if recipe["random_resized_crop"]:
        image = transforms.random_resized_crop(
            image, (16, 16), recipe["crop_scale"], recipe["crop_ratio"], rng
        )
    else:
        image = transforms.resize(image, (16, 16))
    if recipe["crop_padding"]:
        image = transforms.random_crop(image, recipe["crop_padding"], rng)
    if recipe["flip"]:
        image = transforms.random_flip(image, rng)
    if recipe["randaugment"]["num_ops"]:
        operations = SETS[recipe["randaugment"].pop("operations")]
        fill = (125, 123, 114)  # the mean colour in 8 bits
        given = RandAugment(**recipe["randaugment"], operations=operations, fill=fill)
        image = rand_augment(image, given, rng)
    if not recipe["erasing_probability"]:
        return image, None
    return image, transforms.random_rectangle((16, 16), recipe["erasing_probability"], rng)


@pytest.mark.parametrize("name", RECIPES)
def test_augment_does_everything_in_the_published_order(name):
    data = settings(**RECIPES[name])
    augment = create_augment(data, 3)
    results = set()
    for seed in range(30):
        found = augment({"image": PICTURE, "label": 3}, np.random.default_rng(seed))
        image, rectangle = by_hand(data.to_dict(), PICTURE, np.random.default_rng(seed))
        np.testing.assert_array_equal(found["image"], image)
        assert found["image"].dtype == np.uint8
        np.testing.assert_array_equal(found.get("erased"), rectangle)
        assert (found["label"], found["label"].dtype) == (3, np.int32)
        results.add(found["image"].tobytes())
    assert len(results) == 1 if name == "none" else len(results) > 10


@pytest.mark.parametrize("name", RECIPES)
def test_grey_images_can_be_augmented(name):
    augment = create_augment(settings(**RECIPES[name], mean=(0.5,), std=(0.5,)), 1)
    found = augment({"image": PICTURE[..., :1], "label": 0}, np.random.default_rng(0))
    assert found["image"].shape == (16, 16, 1)


def test_without_a_crop_fraction_the_whole_image_is_distorted():
    found = create_preprocess(settings(), 3)({"image": PICTURE, "label": np.int64(7)})
    resized = Image.fromarray(PICTURE).resize((16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(found["image"], np.asarray(resized))
    assert (found["label"], found["label"].dtype) == (7, np.int32)


# 16 / 0.95 = 16.8 is rounded down.
@pytest.mark.parametrize(("fraction", "shorter"), [(1.0, 16), (0.95, 16), (0.875, 18), (0.5, 32)])
@pytest.mark.parametrize("turned", [False, True])
def test_a_crop_fraction_takes_the_middle_of_the_undistorted_image(fraction, shorter, turned):
    image = PICTURE.swapaxes(0, 1) if turned else PICTURE
    sides = (int(shorter * 40 / 24), shorter)
    resized = np.asarray(
        Image.fromarray(image).resize(sides[::-1] if turned else sides, Image.Resampling.BICUBIC)
    )
    top, left = (round((side - 16) / 2) for side in resized.shape[:2])
    expected = resized[top : top + 16, left : left + 16]
    preprocess = create_preprocess(settings(crop_fraction=fraction), 3)
    np.testing.assert_array_equal(preprocess.fit(image), expected)
    found = preprocess({"image": image, "label": 0})["image"]
    np.testing.assert_array_equal(found, expected)


def test_one_mean_serves_all_channels():
    data = settings(mean=(0.5,), std=(0.25,), **{"randaugment.num_ops": 1})
    assert create_augment(data, 3).randaugment.fill == (128,)
    white = np.full((16, 16, 3), 255, np.uint8)
    np.testing.assert_allclose(create_preprocess(data, 3).normalization(white), 2.0, rtol=1e-6)


def test_defaults_are_resizing_alone():
    preprocess = create_preprocess(settings(), 3)
    assert preprocess == Preprocess((16, 16), MEAN, STD)
    assert create_augment(settings(), 3) == Augment(preprocess)


@pytest.mark.parametrize("name", RECIPES)
def test_both_can_be_pickled(name):
    augment = create_augment(settings(**RECIPES[name]), 3)
    copy = pickle.loads(pickle.dumps(augment))
    assert copy == augment
    a, b = (f({"image": PICTURE, "label": 3}, np.random.default_rng(1)) for f in (augment, copy))
    np.testing.assert_array_equal(a["image"], b["image"])


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_size", 0),
        ("mean", (0.5, 0.5)),
        ("mean", (0.5, NAN, 0.5)),
        ("std", ()),
        ("std", (0.5, 0.0, 0.5)),
        ("std", (-1.0,)),
        ("crop_fraction", 0.0),
        ("crop_fraction", 1.5),
        ("crop_fraction", NAN),
        ("crop_padding", -1),
        ("crop_scale", (0.5, 0.2)),
        ("crop_scale", (0.0, 1.0)),
        ("crop_scale", (0.5, 1.5)),
        ("crop_scale", (0.5,)),
        ("crop_ratio", (-1.0, 1.0)),
        ("crop_ratio", (1.0, INF)),
        ("crop_ratio", (NAN, 1.0)),
        ("randaugment.num_ops", -1),
        ("randaugment.magnitude", 11.0),
        ("randaugment.magnitude", NAN),
        ("randaugment.magnitude_std", -0.5),
        ("randaugment.magnitude_std", INF),
        ("randaugment.probability", 1.5),
        ("randaugment.operations", "imagenet"),
        ("erasing_probability", -0.1),
        ("erasing_probability", NAN),
        ("erasing_fill", "pixel"),
    ],
)
def test_values_that_do_not_fit_are_named(key, value):
    with pytest.raises(ValueError) as error:
        create_augment(settings(**{key: value}), 3)
    assert str(error.value).startswith(f"data.{key}={value!r} ")


def test_two_ways_of_cropping_exclude_each_other():
    with pytest.raises(ValueError, match="data.crop_padding=4 must be 0 with random_resized_crop"):
        create_augment(settings(crop_padding=4, random_resized_crop=True), 3)
