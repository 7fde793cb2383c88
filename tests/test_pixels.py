"""Images are whole numbers until they are on the device: there they are normalised and erased."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from snnvit_jax import training
from snnvit_jax.common.pixels import Normalization, normalised
from snnvit_jax.data import loader
from snnvit_jax.evaluation import eval_step
from snnvit_jax.models import recipe_parts
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import experiment
from snnvit_jax.training import shapes
from snnvit_jax.training.erasing import erase
from snnvit_jax.training.mixing import Mixing

ALL = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
LABELS = np.array([0, 1, 2])
MEANS = {
    "CIFAR-10": (recipe_parts.CIFAR10_MEAN, recipe_parts.CIFAR10_STD),
    "CIFAR-100": (recipe_parts.CIFAR100_MEAN, recipe_parts.CIFAR100_STD),
    "ImageNet": (recipe_parts.IMAGENET_MEAN, recipe_parts.IMAGENET_STD),
    "one for all": ((0.3,), (0.4,)),
    "none": ((0.0,), (1.0,)),
}


@pytest.mark.parametrize("name", MEANS)
def test_every_pixel_is_normalised_alike_on_the_host_and_on_the_device(name):
    mean, std = MEANS[name]
    pixels, normalization = np.repeat(ALL, 3, -1), Normalization(mean, std)
    host = normalization(pixels)
    assert (type(host), host.dtype) == (np.ndarray, np.float32)
    np.testing.assert_array_equal(jax.jit(normalization)(pixels), host)  # to the last bit
    exact = (pixels / 255.0 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(host, exact, rtol=0, atol=4e-7)


def test_what_is_normalised_already_stays_as_it_is():
    for dtype in (np.float32, jnp.bfloat16, np.float64):
        images = ALL.astype(dtype)
        assert Normalization((0.5,), (0.5,))(images) is images
    assert normalised(ALL, None) is ALL


RECTANGLES = np.array([[0, 0, 2, 3], [5, 6, 3, 4], [0, 0, 0, 0], [1, 2, 6, 1]], np.int32)


def overwritten(fill):
    """(images after erasing, where they should have been overwritten)."""
    images = np.full((4, 8, 10, 3), 9.0, np.float32)
    inside = np.zeros(images.shape, bool)
    for place, (top, left, height, width) in zip(inside, RECTANGLES, strict=True):
        place[top : top + height, left : left + width] = True
    return np.asarray(erase(jax.random.key(0), images, RECTANGLES, fill)), inside


def test_a_rectangle_of_each_image_is_erased():
    found, inside = overwritten("zero")
    np.testing.assert_array_equal(found, np.where(inside, 0, 9))


def test_what_is_erased_may_become_noise():
    found, inside = overwritten("noise")
    np.testing.assert_array_equal(found != 9, inside)
    images = np.full((50, 20, 20, 3), 9.0, np.float32)
    whole = np.tile(np.array([0, 0, 20, 20], np.int32), (50, 1))
    noise = np.asarray(erase(jax.random.key(1), images, whole, "noise"))
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert len(np.unique(noise[:, 0, 0, 0])) == 50  # another for each image


def pixels_of(tiny):
    return np.random.default_rng(0).integers(0, 256, tiny.images.shape, np.uint8)


@pytest.mark.parametrize("erased", [False, True])
def test_a_step_on_whole_numbers_is_one_on_normalised_images(tiny, erased):
    pixels, normalization = pixels_of(tiny), Normalization((0.3,), (0.4,))
    images, extra = normalization(pixels), {}
    if erased:
        extra = {"erased": RECTANGLES[:3]}
        images = np.asarray(erase(jax.random.key(0), images, RECTANGLES[:3]))
    mixing, found = Mixing(mixup_alpha=0.5, cutmix_alpha=0.5), []
    for batch, given in (({"image": images}, None), ({"image": pixels, **extra}, normalization)):
        procedure = training.Procedure(
            tiny.model, optax.sgd(0.1), normalization=given, mixing=mixing
        )
        variables = jax.tree.map(jnp.array, tiny.variables)  # a copy: a step donates its state
        state = training.state_from_variables(procedure, variables)
        state, _ = training.train_step(state, batch | {"label": LABELS}, procedure=procedure)
        found.append(jax.device_get(state.variables))
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_an_evaluation_of_whole_numbers_is_one_of_normalised_images(tiny):
    pixels, normalization = pixels_of(tiny), Normalization((0.3,), (0.4,))
    batch = {"label": LABELS, "mask": np.ones(3, bool)}
    expected = eval_step(tiny.variables, batch | {"image": normalization(pixels)}, model=tiny.model)
    found = eval_step(
        tiny.variables,
        batch | {"image": pixels},
        model=tiny.model,
        normalization=normalization,
    )
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_whole_numbers_without_a_normalization_are_refused(tiny):
    procedure = training.Procedure(tiny.model, optax.sgd(0.1))
    state = training.state_from_variables(procedure, jax.tree.map(jnp.array, tiny.variables))
    with pytest.raises(ValueError, match="must be floating point and normalised, got uint8"):
        training.train_step(state, {"image": pixels_of(tiny), "label": LABELS}, procedure=procedure)


def built(**changes):
    config = config_lib.default_config()
    config.batch_size = 20
    config.model.update({"embed_dim": 16, "num_heads": 2, "depth": 1, "time_steps": 2})
    config.data.update({"image_size": 8, "mean": (0.3,), "std": (0.4,)} | changes)
    return experiment.build(config)


def test_the_batches_of_a_run_are_a_quarter_of_normalised_ones():
    run = built(erasing_probability=0.5)
    options = run.loader_options
    with loader.train_batches(run.train_source, run.augment, options, seed=0) as batches:
        train = list(itertools.islice(batches, 3))
    with loader.eval_batches(run.eval_source, run.preprocess, options) as batches:
        held_out = list(batches)
    for batch in train + held_out:
        assert batch["image"].dtype == np.uint8
        normalised = run.normalization(batch["image"])
        assert normalised.shape == (20, *run.image_shape)
        assert normalised.nbytes == 4 * batch["image"].nbytes
    assert 0.2 < np.mean([batch["erased"].any(1).mean() for batch in train]) < 0.8
    assert run.procedure.erasing_fill == "zero"


def test_nothing_is_said_of_erasing_where_nothing_is_erased():
    run = built()
    options = run.loader_options
    with loader.train_batches(run.train_source, run.augment, options, seed=0) as batches:
        assert next(batches).keys() == {"image", "label", "replaced"}


def test_a_step_in_shapes_takes_what_the_batches_hold():
    run = built()
    _, batch = shapes.step_shapes(run.procedure, 4)
    assert batch["image"].dtype == np.uint8
