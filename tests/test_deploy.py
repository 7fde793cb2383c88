"""A deployed model is its masked model: the same spikes, the same logits, whatever the schedule."""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quickly import QUICKLY

import snnvit_jax as snn
from snnvit_jax import neurons
from snnvit_jax.time_steps import masks

T = 3
# Everything in float64, where currents differ by 1e-16: no spike may differ at all.
VARIANTS = {
    "lif": {},
    "plif, soft reset": {"neuron": {"kind": "plif", "tau": 2.5, "reset": "soft"}, "time_steps": 2},
    "if, imagenet form, one step": {
        "name": "spikformer_8_384_imagenet",
        "pool": (True, True, False, True),
        "neuron": {"kind": "if"},
        "time_steps": 1,
    },
    "relu": {"neuron": {"kind": "relu"}, "time_steps": 2},
    "quantized": {"neuron": {"kind": "quantized", "levels": 3}, "time_steps": 2},
    "psn": {"neuron": {"kind": "psn"}},
}
# Many small programs, each run once: what counts is how fast they compile.


class Masked(NamedTuple):
    """A masked model in float64.

    `run(schedule)` returns its logits and {layer name: spikes [T, B, ...]}.
    """

    model: Any
    variables: dict
    images: np.ndarray
    names: list
    run: Any


@pytest.fixture(scope="module")
def create(lively):
    """Returns a function: variant -> Masked; each is compiled once."""

    @functools.cache
    def create_variant(variant):
        settings = {"name": "spikformer_2_384", "time_steps": T, "image_size": 8} | VARIANTS[
            variant
        ]
        model = snn.create_model(
            num_classes=3, embed_dim=16, num_heads=2, depth=1, mlp_ratio=2.0, **settings
        )
        model = type(model)(dataclasses.replace(model.config, dtype=jnp.dtype("float64")))
        variables = jax.tree.map(lambda x: np.asarray(x, np.float64), lively(model))
        quieten(variables["params"]["block_0"]["mlp"])
        images = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
        with jax.enable_x64(True):
            apply = jax.jit(
                lambda v: model.apply(v, images, mutable=["spikes"]), compiler_options=QUICKLY
            )

        def run(schedule):
            logits, seen = apply(snn.with_schedule(variables, schedule))
            return np.asarray(logits), {n: np.asarray(s) for n, s in snn.spikes(seen).items()}

        names = list(masks.scores(variables["params"]))
        return Masked(model, variables, images, names, run)

    return create_variant


def quieten(params):
    """Lowers the biases of an MLP such that they alone make no neuron fire; those of others do."""
    for name, layer in params.items():
        if "bias" in layer:
            layer["bias"] *= 0.2 if name.endswith("_bn") else 0.0


def schedules(names, time_steps, count, seed=0):
    """Random schedules from sparse to dense."""
    rng = np.random.default_rng(seed)
    for density in np.linspace(0.9, 0.5, count):
        yield snn.TimeStepSchedule({n: rng.random(time_steps) < density for n in names})


def run_deployed(deployed, images, **jit_options):
    """Logits, and {layer name: spikes [K, B, ...]} at the steps that are computed."""

    @functools.partial(jax.jit, **jit_options)
    def run(weights, images):
        emitted = {}

        def see_neurons(call, args, kwargs, context):
            result = call(*args, **kwargs)
            if isinstance(context.module, neurons.LIF) and context.method_name == "__call__":
                emitted["/".join(context.module.path)] = result
            return result

        with nn.intercept_methods(see_neurons):
            logits = deployed._function(weights, images)
        assert {name: signal.steps for name, signal in emitted.items()} == deployed.steps
        spikes = {name: signal for name, signal in emitted.items() if signal.steps}
        return logits, {name: jnp.moveaxis(s.values, 1, 0) for name, s in spikes.items()}

    return run(deployed.weights, images)


def assert_same_spikes(deployed, found, expected):
    for name, emitted in found.items():
        steps = list(deployed.steps[name])
        np.testing.assert_array_equal(emitted, expected[name][steps], err_msg=name)


def assert_same_values(deployed, found, expected):
    for name, emitted in found.items():
        steps = list(deployed.steps[name])
        np.testing.assert_allclose(emitted, expected[name][steps], 1e-10, 1e-10, err_msg=name)


def assert_deployed_equals_masked(masked, schedule, **options):
    deployed = snn.deploy(masked.model, masked.variables, schedule, **options)
    logits, spikes = masked.run(schedule)
    found_logits, found = run_deployed(deployed, masked.images, compiler_options=QUICKLY)
    np.testing.assert_allclose(found_logits, logits, rtol=1e-6, atol=1e-7)
    spiking = masked.model.config.neuron.spiking
    (assert_same_spikes if spiking else assert_same_values)(deployed, found, spikes)
    assert all(schedule.masks[name][list(steps)].all() for name, steps in deployed.steps.items())
    assert_others_have_no_effect(masked, deployed.steps, logits)


def assert_others_have_no_effect(masked, steps, logits):
    """Steps that are not computed may as well be masked."""
    T = masked.model.config.time_steps
    computed = {name: np.isin(np.arange(T), active) for name, active in steps.items()}
    np.testing.assert_array_equal(masked.run(snn.TimeStepSchedule(computed))[0], logits)


@pytest.mark.parametrize("variant", VARIANTS)
def test_random_schedules(variant, create, x64):
    masked = create(variant)
    config = masked.model.config
    for schedule in schedules(masked.names, config.time_steps, 2):
        assert_deployed_equals_masked(masked, schedule)


def layers_off(*patterns):
    """All steps on, except in layers whose name contains one of the patterns."""
    return lambda name: np.full(T, not any(pattern in name for pattern in patterns))


ADVERSARIAL = {
    "no step anywhere": lambda name: [0, 0, 0],
    "middle missing": lambda name: [1, 0, 1],
    "neighbours disagree": lambda name: [1, 0, 1] if len(name) % 2 else [0, 1, 0],
    "attention without a step": layers_off("attn/proj_lif"),
    "mlp without a step": layers_off("fc2_lif"),
    "product without a step": layers_off("attn_lif"),
    "k and v never together": lambda name: [1, 0, 1] if "k_lif" in name else [0, 1, 0],
    "first layer without a step": layers_off("proj_lif"),
    "position alone": lambda name: [0, 1, 0] if "rpe" in name else [1, 0, 0],
    "emits after its input ended": lambda name: [0, 1, 1] if "fc2" in name else [1, 0, 0],
    "emits before its input starts": lambda name: [1, 0, 0] if "fc2" in name else [0, 1, 1],
}


@pytest.mark.parametrize("pattern", ADVERSARIAL)
def test_adversarial_schedules(pattern, create, x64):
    masked = create("lif")
    masks = {name: ADVERSARIAL[pattern](name) for name in masked.names}
    assert_deployed_equals_masked(masked, snn.TimeStepSchedule(masks))


def test_a_silent_model_gives_the_bias_of_its_head(create, x64):
    masked = create("lif")
    nothing = snn.TimeStepSchedule({n: [0] * T for n in masked.names})
    deployed = snn.deploy(masked.model, masked.variables, nothing)
    head = masked.variables["params"]["head"]
    np.testing.assert_array_equal(deployed(masked.images), [head["bias"]] * 2)
    assert set(deployed.weights) == {"head/kernel", "head/bias"}  # zeros are not kept


def test_layers_without_effect_are_removed(create, x64):
    masked = create("lif")
    masks = {name: layers_off("attn/proj_lif")(name) for name in masked.names}
    deployed = snn.deploy(masked.model, masked.variables, snn.TimeStepSchedule(masks))
    assert not any(deployed.steps[f"block_0/attn/{x}_lif"] for x in ("q", "k", "v", "attn", "proj"))
    assert not any("attn" in name for name in deployed.weights)


def test_steps_at_which_a_bias_cannot_fire_are_removed(create, x64):
    masked = create("lif")
    masks = {name: [1, 1, 1] for name in masked.names}
    masks |= {name: [0, 1, 0] for name in masked.names if "fc1" in name or "attn_lif" in name}
    steps = snn.deploy(masked.model, masked.variables, snn.TimeStepSchedule(masks)).steps
    assert steps["block_0/mlp/fc2_lif"] == (1,)  # its bias is low
    assert steps["block_0/attn/proj_lif"] == (0, 1, 2)  # its bias is not
    assert steps["block_0/attn/q_lif"] == (0, 1)  # what came before the last spike counts


# ---------------------------------------------------------------- published classes


@pytest.fixture(scope="module")
def exact():
    """Published weights whose arithmetic is exact in float32, ties at the threshold included."""
    golden = golden_files.read("spikformer_small_exact")
    model = golden.model()
    return golden, model, snn.convert.from_torch(model, golden.weights)


def test_published_spikes_in_bfloat16(exact):
    # The weights are dyadic: folded, they are exact in bfloat16 too.
    golden, model, variables = exact
    deployed = snn.deploy(model, variables, dtype="bfloat16")
    logits, found = run_deployed(deployed, golden.images, compiler_options=QUICKLY)
    assert all(emitted.dtype == jnp.bfloat16 for emitted in found.values())
    assert found.keys() == golden.eval.spikes.keys()
    assert_same_spikes(deployed, found, golden.eval.spikes)
    np.testing.assert_array_equal(logits, golden.eval.logits)


def test_published_weights_with_a_random_schedule(exact):
    golden, model, variables = exact
    (schedule,) = schedules(list(masks.scores(variables["params"])), 4, 1, seed=4)
    apply = jax.jit(
        lambda v: model.apply(v, golden.images, mutable=["spikes"]), compiler_options=QUICKLY
    )
    expected, seen = apply(snn.with_schedule(variables, schedule))
    deployed = snn.deploy(model, variables, schedule)
    logits, found = run_deployed(deployed, golden.images, compiler_options=QUICKLY)
    assert len(found) > 5
    assert_same_spikes(deployed, found, {n: np.asarray(s) for n, s in snn.spikes(seen).items()})
    np.testing.assert_array_equal(logits, expected)


# ---------------------------------------------------------------- what goes in


@pytest.fixture(scope="module")
def deployed(tiny):
    return snn.deploy(tiny.model, tiny.variables)


def test_float32_logits_are_those_of_the_model(tiny, deployed):
    expected = jax.jit(tiny.model.apply)(tiny.variables, tiny.images)
    np.testing.assert_allclose(deployed(tiny.images), expected, rtol=1e-5, atol=1e-5)


def test_the_schedule_is_the_learned_one_in_forward_order(tiny, deployed):
    assert list(deployed.schedule.masks) == snn.layer_names(tiny.model) == list(deployed.steps)
    assert deployed.schedule.average == 4


def test_the_dtype_is_the_models_own_if_not_given(tiny, deployed):
    assert deployed.about["dtype"] == "float32"
    assert snn.deploy(tiny.model, tiny.variables, dtype="bfloat16").about["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("shape", "dtype"), [((3, 16, 16), "f4"), ((3, 8, 8, 3), "f4"), ((0, 16, 16, 3), "f4")]
)
def test_images_of_another_shape_are_rejected(deployed, shape, dtype):
    with pytest.raises(ValueError, match=r"\[B, 16, 16, 3\]"):
        deployed(np.zeros(shape, dtype))


def test_bytes_are_no_normalised_images(deployed):
    with pytest.raises(ValueError, match="normalised, got uint8"):
        deployed(np.zeros((1, 16, 16, 3), np.uint8))


def test_variables_of_another_model_are_rejected(tiny, lively):
    other = type(tiny.model)(dataclasses.replace(tiny.model.config, mlp_ratio=2.0))
    with pytest.raises(ValueError, match=r"fc1_bn/mean is \(128,\), in the model \(64,\)"):
        snn.deploy(other, tiny.variables)
    with pytest.raises(ValueError, match=r"batch_stats/.* is absent, in the model"):
        snn.deploy(tiny.model, {"params": tiny.variables["params"]})


def test_a_schedule_of_another_model_is_rejected(tiny):
    with pytest.raises(ValueError, match="another model"):
        snn.deploy(tiny.model, tiny.variables, snn.TimeStepSchedule({"a": [1, 0]}))


def test_another_kind_of_model_is_rejected():
    with pytest.raises(ValueError, match="LIF is of no known family: spikformer"):
        snn.deploy(neurons.LIF(), {})


@pytest.mark.parametrize(
    ("dtype", "message"), [("int32", "int32"), ("float64", "jax_enable_x64"), ("fp8", "fp8")]
)
def test_a_dtype_that_cannot_be_used_is_rejected(tiny, dtype, message):
    with pytest.raises(ValueError, match=message):
        snn.deploy(tiny.model, tiny.variables, dtype=dtype)


@pytest.mark.parametrize("value", [np.nan, -1.0, np.inf])
def test_weights_that_are_not_finite_are_named(tiny, value):
    variables = jax.tree.map(np.array, tiny.variables)
    variables["batch_stats"]["block_0"]["attn"]["q_bn"]["var"][1] = value
    problem = "a negative variance" if value == -1 else f"1 values that are not finite, {value}"
    with pytest.raises(ValueError, match=f"'batch_stats/block_0/attn/q_bn/var' holds {problem}"):
        snn.deploy(tiny.model, variables)


def test_finite_weights_that_fold_into_others_are_named(tiny):
    variables = jax.tree.map(np.array, tiny.variables)
    variables["params"]["block_0"]["attn"]["q_bn"]["scale"][1] = 3e38
    variables["batch_stats"]["block_0"]["attn"]["q_bn"]["var"][1] = 0
    with pytest.raises(ValueError, match=r"q_bn.*q_linear.*not\s+finite"):
        snn.deploy(tiny.model, variables)


def test_weights_and_schedules_of_other_time_steps_are_named_with_both(tiny):
    other = type(tiny.model)(dataclasses.replace(tiny.model.config, time_steps=6))
    with pytest.raises(ValueError, match="have 4 time steps, the model 6: .*snn.with_time_steps"):
        snn.deploy(other, tiny.variables)
    schedule = snn.TimeStepSchedule.from_variables(tiny.variables).resized(6)
    with pytest.raises(ValueError, match="has 6 time steps, the model 4; schedule.resized.4. fits"):
        snn.deploy(tiny.model, tiny.variables, schedule)
    deployed = snn.deploy(other, snn.with_time_steps(tiny.variables, 6), schedule)
    assert deployed.schedule.time_steps == 6
