"""Where a deployed model can be called, what it says of bad images, and what measures it."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import snnvit_jax as snn
from snnvit_jax.signals import check_images


@pytest.fixture(scope="module")
def deployed(tiny):
    return snn.deploy(tiny.model, tiny.variables)


@pytest.fixture(scope="module")
def loaded(deployed, tmp_path_factory):
    path = tmp_path_factory.mktemp("deployed") / "model.snn"
    deployed.save(path)
    return snn.load_deployed(path)


@pytest.fixture(scope="module")
def logits(deployed, tiny):
    return deployed(tiny.images)


@pytest.fixture(params=["made", "loaded"])
def either(request, deployed, loaded):
    return {"made": deployed, "loaded": loaded}[request.param]


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- inside other programs


def test_inside_a_compiled_function(either, tiny, logits):
    classes = jax.jit(lambda x: jnp.argmax(either(2 * x / 2), axis=-1))(tiny.images)
    np.testing.assert_array_equal(classes, np.argmax(logits, axis=-1))


def test_inside_a_loop_over_batches(either, tiny, logits):
    batches = jnp.stack([tiny.images, tiny.images[::-1]])
    found = jax.jit(lambda x: jax.lax.map(either, x))(batches)
    assert_close(found, np.stack([logits, logits[::-1]]))


def test_only_its_shape(either, tiny):
    images = jax.ShapeDtypeStruct((7, 16, 16, 3), jnp.float32)
    found = jax.eval_shape(either, images)
    assert (found.shape, found.dtype) == ((7, 3), jnp.float32)


def test_over_one_more_axis(either, tiny, logits):
    batches = jnp.stack([tiny.images, tiny.images[::-1]])
    assert_close(jax.vmap(either)(batches), np.stack([logits, logits[::-1]]))


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "m.npz", "m.SNN", "m.onnx.zip"])
def test_a_name_that_promises_another_format_is_refused(deployed, tmp_path, name):
    with pytest.raises(ValueError, match=r"must end with \.snn or \.onnx"):
        deployed.save(tmp_path / name)
    with pytest.raises(ValueError, match=r"must end with \.safetensors"):
        deployed.save_weights(tmp_path / name.replace("safetensors", "snn"))
    assert list(tmp_path.iterdir()) == []


def test_its_gradient_is_that_of_the_model(deployed, tiny):
    def of_images(function):
        return jax.jit(jax.grad(lambda x: jnp.sum(function(x)[:, 0])))(jnp.asarray(tiny.images))

    expected = of_images(lambda x: tiny.model.apply(tiny.variables, x))
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(of_images(deployed), expected, rtol=1e-3, atol=1e-5)


def test_images_of_lower_precision_are_widened(either, tiny, logits):
    half = jnp.asarray(tiny.images, jnp.bfloat16)
    found = either(half)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, either(half.astype(jnp.float32)))


# ---------------------------------------------------------------- images that do not fit

SHAPE = (3, 16, 16, 3)
BAD = {
    "no batch axis": (SHAPE[1:], "f4"),
    "no images": ((0, *SHAPE[1:]), "f4"),
    "grey": ((3, 16, 16, 1), "f4"),
    "no channels": ((3, 16, 16), "f4"),
    "an alpha channel": ((3, 16, 16, 4), "f4"),
    "another size": ((3, 8, 8, 3), "f4"),
    "not square": ((3, 16, 8, 3), "f4"),
    "channels first": ((3, 3, 16, 16), "f4"),
    "a recording of other steps": ((3, 5, 16, 16, 3), "f4"),
    "bytes": (SHAPE, "u1"),
    "whole numbers": (SHAPE, "i4"),
    "truth values": (SHAPE, "?"),
}


def words(function, *arguments):
    with pytest.raises(ValueError) as error:
        function(*arguments)
    return str(error.value)


@pytest.mark.parametrize("case", BAD)
def test_model_and_deployed_model_say_the_same_of_bad_images(case, tiny, deployed, loaded):
    shape, dtype = BAD[case]
    images = np.zeros(shape, dtype)
    said = {
        words(tiny.model.apply, tiny.variables, images),
        words(jax.jit(tiny.model.apply), tiny.variables, images),
    }
    assert len(said) == 1
    # A model takes recordings too, one that is deployed for images does not: it does not name them.
    of_model = said.pop().replace(" or [B, 4, 16, 16, 3]", "")
    for function in (deployed, loaded, jax.jit(deployed)):
        assert words(function, images) == of_model
    problem = np.dtype(dtype).name if shape == SHAPE else str(shape)
    assert problem in of_model


@pytest.mark.parametrize("images", [np.zeros(SHAPE, "f4").tolist(), "x.png", None])
def test_what_is_no_array_is_told_by_its_type(tiny, deployed, images):
    said = f"images must be an array, got {type(images).__name__}"
    assert words(tiny.model.apply, tiny.variables, images) == said
    assert words(deployed, images) == said
    assert words(snn.energy_report, tiny.model, tiny.variables, images) == said


def test_a_deployed_model_for_images_refuses_recordings_and_the_other_way(tiny, deployed):
    recordings = np.zeros((2, 4, 16, 16, 3), np.float32)
    assert "images must be [B, 16, 16, 3]" in words(deployed, recordings)
    other = snn.deploy(tiny.model, tiny.variables, recordings=True)
    assert "recordings must be [B, 4, 16, 16, 3], got (3, 16, 16, 3)" in words(other, tiny.images)


def test_a_deployed_model_of_recordings_is_the_model(tiny):
    recordings = np.random.default_rng(0).normal(size=(2, 4, 16, 16, 3)).astype(np.float32)
    deployed = snn.deploy(tiny.model, tiny.variables, recordings=True)
    expected = jax.jit(tiny.model.apply)(tiny.variables, recordings)
    np.testing.assert_allclose(deployed(recordings), expected, rtol=1e-5, atol=1e-5)
    assert "got (2, 3, 16, 16, 3)" in words(deployed, recordings[:, :3])


@pytest.mark.parametrize("channels", [None, 3])
def test_without_known_channels_any_number_of_them_fits(channels):
    grey = np.zeros((1, 16, 16, 1), np.float32)
    if channels is None:
        check_images(grey, (16, 16))
    else:
        assert "got (1, 16, 16, 1)" in words(check_images, grey, (16, 16), channels)


def test_schedules_of_the_same_masks_under_other_names_are_others(tiny):
    names = snn.layer_names(tiny.model)  # the first two follow each other
    first = {name: [1, 1, 1, 1] for name in names} | {names[0]: [1, 0, 0, 1]}
    other = {name: [1, 1, 1, 1] for name in names} | {names[1]: [1, 0, 0, 1]}
    schedules = [snn.TimeStepSchedule(m) for m in (first, other, dict(reversed(first.items())))]
    steps = [snn.deploy(tiny.model, tiny.variables, schedule).steps for schedule in schedules]
    assert [found[names[0]] for found in steps[:2]] == [(0, 3), (0, 1, 2, 3)]
    assert [found[names[1]] for found in steps[:2]] == [(0, 1, 2, 3), (0, 3)]
    assert steps[2] == steps[0]  # the order of the names is nothing


def test_the_masked_model_is_measured_with_the_options_of_the_deployed_one():
    root = pathlib.Path(__file__).parents[1]
    for script in ("experiments/deploy/measure.py", "snnvit_jax/deployment/build.py"):
        assert "jax.jit(" not in (root / script).read_text(), script
    assert "backends.jit(model.apply)" in (root / "experiments/deploy/measure.py").read_text()
