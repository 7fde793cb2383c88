"""Deployed models as ONNX, computed by onnxruntime beside the XLA program."""

import functools
import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

import snnvit_jax as snn
from snnvit_jax import extras
from snnvit_jax.data import sources
from snnvit_jax.deployment.onnx.export import model_bytes
from snnvit_jax.models import FAMILIES
from snnvit_jax.neurons.kinds import KINDS

SMALL = {"embed_dim": 16, "num_heads": 2, "depth": 1, "mlp_ratio": 2.0, "image_size": 8}
# Every family in a small size, and forms with other operations.
FORMS = {
    "spikformer": ("spikformer_2_384", SMALL),
    "spikingformer": ("spikingformer_2_384", SMALL),
    "sdt": ("sdt_2_256", SMALL),
    "qkformer": ("qkformer_4_384", SMALL | {"depth": 3, "image_size": 16}),
    "metaspikeformer": (
        "metaspikeformer_8_384_imagenet",
        {"embed_dim": (8, 8, 8, 8), "num_heads": 2, "depth": (1, 1), "image_size": 16},
    ),
    "spikingresformer": (
        "spikingresformer_cifar",
        {"embed_dim": (16, 16, 16), "num_heads": (1, 1, 1), "depth": (1, 1, 1), "group_size": 8},
    ),
}
FORMS = {name: form for name, form in FORMS.items() if name.split(",")[0] in FAMILIES}
T = 2


def session_of(content):
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def run(session, images):
    (logits,) = session.run(["logits"], {"images": images})
    return logits


def quickly(deployed, images):
    """The logits of a deployed model, compiled without optimisations."""
    program = jax.jit(deployed._function, compiler_options={"xla_backend_optimization_level": 0})
    return np.asarray(program(deployed.weights, images))


def deployed_of(lively, name, channels=3, num_classes=3, recordings=False, **settings):
    """A deployed model, with a schedule in which every layer has its own steps."""
    model = snn.create_model(name, num_classes, time_steps=T, **settings)
    rng, names = np.random.default_rng(1), snn.layer_names(model, channels)
    schedule = snn.TimeStepSchedule({n: np.arange(T) <= rng.integers(T) for n in names})
    schedule.masks[names[0]][:] = True
    return snn.deploy(model, lively(model, channels), schedule, recordings=recordings)


def bytes_of(deployed):
    return model_bytes(deployed._function, deployed.weights, deployed.about, {})


def test_every_family_has_a_form_here():
    assert {name.split(",")[0] for name in FORMS} == set(FAMILIES)


@pytest.mark.parametrize("form", FORMS)
def test_every_family_gives_the_same_logits_for_any_batch(form, lively):
    name, settings = FORMS[form]
    deployed = deployed_of(lively, name, **settings)
    images = np.random.default_rng(0).normal(size=(3, *deployed.about["image_shape"]))
    images = images.astype(np.float32)
    expected, session = quickly(deployed, images), session_of(bytes_of(deployed))
    assert np.ptp(expected) > 0.01  # something arrives
    np.testing.assert_allclose(run(session, images), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run(session, images[:1]), expected[:1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lif"])
def test_every_kind_of_neuron(kind, lively):
    deployed = deployed_of(lively, "spikformer_2_384", **SMALL, neuron={"kind": kind})
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    got = run(session_of(bytes_of(deployed)), images)
    np.testing.assert_allclose(got, quickly(deployed, images), rtol=1e-4, atol=1e-4)


def test_recordings_are_read_too(lively):
    deployed = deployed_of(lively, "spikformer_2_384", channels=2, recordings=True, **SMALL)
    frames = np.random.default_rng(0).integers(3, size=(2, T, 8, 8, 2)).astype(np.float32)
    got = run(session_of(bytes_of(deployed)), frames)
    np.testing.assert_allclose(got, quickly(deployed, frames), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def digits():
    pixels = np.stack([example["image"] for example in sources.load("digits", "test").examples])
    return (pixels / np.float32(255) - np.float32(0.3)) / np.float32(0.4)


@pytest.fixture(scope="module")
def digits_model(lively, digits):
    """Its head's bias makes every class the most likely one of some digits."""
    deployed = deployed_of(lively, "spikformer_2_384", channels=1, num_classes=10, **SMALL)
    bias = deployed.weights["head/bias"] - quickly(deployed, digits).mean(0)
    deployed.weights["head/bias"] = jnp.asarray(bias)
    return deployed


@pytest.fixture(scope="module")
def digits_file(digits_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    digits_model.save(path)
    return path


def test_every_digit_is_predicted_alike(digits_model, digits_file, digits):
    expected, got = quickly(digits_model, digits), run(session_of(digits_file.read_bytes()), digits)
    np.testing.assert_array_equal(got.argmax(1), expected.argmax(1))
    assert len(set(expected.argmax(1))) > 5
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_the_file_says_what_it_is_and_keeps_the_weights_by_name(digits_model, digits_file):
    model = onnx.load(digits_file)
    about = {p.key: json.loads(p.value) for p in model.metadata_props}
    assert about["about"] == digits_model.about
    assert about["masks"] == {n: m.tolist() for n, m in digits_model.schedule.masks.items()}
    (images,), (logits,) = model.graph.input, model.graph.output
    sizes = [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim]
    assert (images.name, sizes) == ("images", ["batch", 8, 8, 1])
    sizes = [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim]
    assert (logits.name, sizes) == ("logits", ["batch", 10])
    kept = {x.name: onnx.numpy_helper.to_array(x) for x in model.graph.initializer}
    for name, weight in digits_model.weights.items():
        if name.endswith("/kernel"):
            order = (3, 2, 0, 1) if weight.ndim == 4 else (0, 1)
            np.testing.assert_array_equal(kept[name], np.transpose(weight, order), err_msg=name)


# ---------------------------------------------------------------- what is refused


def test_a_loaded_model_and_bfloat16_are_refused(digits_model, tiny, tmp_path):
    loaded = types.SimpleNamespace(_program=b"", schedule=digits_model.schedule)
    narrow = snn.deploy(tiny.model, tiny.variables, dtype="bfloat16")
    with pytest.raises(ValueError, match="dtype='bfloat16'"):
        narrow.save(tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="loaded from a file"):
        type(digits_model)._as_onnx(loaded)


def test_an_unknown_primitive_is_refused_by_name(digits_model):
    def program(weights, images):
        return jnp.cumsum(images.reshape(images.shape[0], -1), axis=1)

    with pytest.raises(NotImplementedError, match="'cumsum' has no counterpart"):
        model_bytes(program, {}, digits_model.about, {})


def test_what_is_missing_is_named(digits_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in [n for n in sys.modules if n.startswith("snnvit_jax.deployment.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("snnvit_jax.deployment.onnx", raising=False)
    with pytest.raises(extras.MissingExtraError, match=r"snnvit_jax\[onnx\]"):
        digits_model.save(tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


# ---------------------------------------------------------------- primitives one by one


def _elementwise(x, w):
    y = jnp.exp(-jnp.abs(x)) + jnp.sqrt(jnp.square(w)) * jnp.tanh(x) - jax.nn.sigmoid(x)
    y = jnp.where((y > 0.5) | (x <= w) & ~(x == 0), y, x**3) + (x != w).astype(x.dtype)
    return jnp.clip(y, -1, 2) + jnp.floor(x) + jnp.sign(w) + jnp.minimum(x, 0.5) + (x >= 0)


def _by_platform(x, w):
    return jax.lax.platform_dependent(x, cpu=lambda x: x + 0.0, default=lambda x: x * 1.0)


def _moves(x, w):
    y = jnp.stack([x, x + 1, x * w], axis=1)[:, jnp.array([2, 0])]
    y = jnp.concatenate([y, y[:, :1]], axis=1)
    y = jax.lax.slice_in_dim(jnp.pad(y, ((0, 0), (0, 0), (1, 1), (0, 2))), 1, 5, stride=2, axis=2)
    return y.max(1).sum((1,)) + y.mean((1, 2)) + jnp.broadcast_to(w[0, :1], (x.shape[0], 6))


def _products(x, w):
    y = jnp.einsum("bij,kj->bik", x, w)
    y = jnp.einsum("bik,bjk->bij", y, x @ w.T)
    return y + jnp.broadcast_to(w[:, :1], y.shape).transpose(0, 2, 1)


def _convolutions(x, w):
    kernel = jnp.stack([jnp.stack([w[:2, :2], w[2:, 2:]], -1)] * 2, -1)  # 2 x 2 x 2 x 2
    images = jnp.stack([x, 2 - x, x * x, x + 1], -1)
    grouped = functools.partial(
        jax.lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    y = grouped(images, kernel, (2, 1), ((1, 0), (0, 1)), feature_group_count=2)
    return grouped(y, kernel[..., :1], (1, 1), "VALID", rhs_dilation=(1, 2))


@pytest.mark.parametrize("function", [_elementwise, _by_platform, _moves, _products, _convolutions])
def test_primitives_give_what_jax_gives(function, digits_model):
    rng = np.random.default_rng(0)
    w = rng.normal(size=(4, 4)).astype(np.float32)
    x = rng.normal(size=(3, 4, 4)).astype(np.float32)
    about = digits_model.about | {"image_shape": [4, 4]}

    def program(weights, images):
        y = function(images, weights["w"])
        return y.reshape(y.shape[0], -1)

    got = run(session_of(model_bytes(program, {"w": w}, about, {})), x)
    np.testing.assert_allclose(got, program({"w": w}, x), rtol=1e-5, atol=1e-5)
