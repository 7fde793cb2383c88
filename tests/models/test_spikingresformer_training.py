"""SpikingResformer trained, divided over devices, and on recordings of an event camera."""

import dataclasses

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quickly import QUICKLY
from test_deploy import schedules
from test_spikingresformer import SMALL, in_float64, taps

import snnvit_jax as snn
from snnvit_jax import training
from snnvit_jax.distributed.sharding import Placement, check_model
from snnvit_jax.neurons.kinds import ReLUNeuron
from snnvit_jax.training.distillation import Distillation
from snnvit_jax.training.objective import Objective


@pytest.fixture(scope="module")
def small(lively):
    """A model in which every layer fires, its variables and images."""
    model = snn.create_model("spikingresformer_cifar", 3, time_steps=2, **SMALL)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    return model, lively(model), images


# ---------------------------------------------------------------- training


def trained(model, variables, images, **applied):
    """(loss, new statistics, gradients) of one training step."""

    def loss_fn(params):
        given = variables | {"params": params}
        logits, new = model.apply(given, images, train=True, mutable=["batch_stats"], **applied)
        return -jax.nn.log_softmax(logits)[jnp.arange(2), jnp.arange(2)].sum(), new

    step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True), compiler_options=QUICKLY)
    return step(variables["params"])


@pytest.mark.slow
def test_branches_computed_again_give_the_same_gradients_and_rates(small, x64):
    masked = in_float64(*small)
    model, variables, images = masked.model, masked.variables, masked.images
    again = type(model)(dataclasses.replace(model.config, remat="block"))
    one, other = (trained(m, variables, images) for m in (model, again))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), one, other)
    rates = one[0][1]["batch_stats"]["layers_2_1"]["firing_rate_attn"]
    assert (rates != variables["batch_stats"]["layers_2_1"]["firing_rate_attn"]).all()


@pytest.mark.slow
def test_bfloat16_trains_in_parts_and_follows_its_relu_twin(small):
    model, variables, images = small
    config = dataclasses.replace(model.config, dtype=jnp.bfloat16, drop_path=0.1)
    model = type(model)(config)
    twin = type(model)(dataclasses.replace(config, neuron=ReLUNeuron(), time_steps=1))
    teacher = snn.with_time_steps(variables, 1)
    procedure = training.Procedure(
        model,
        optax.adam(1e-2),
        Objective(),
        accumulate=2,
        distillation=Distillation(twin, 0.2, 2.0),
    )
    fresh = jax.tree.map(jnp.array, variables)
    for name, stats in fresh["batch_stats"].items():  # the first batch sets the rates
        fresh["batch_stats"][name] = {k: 0 * x if "rate" in k else x for k, x in stats.items()}
    state = training.state_from_variables(procedure, fresh)
    batch = {"image": np.tile(images, (4, 1, 1, 1)), "label": np.tile(np.arange(2), 4)}
    losses = []
    for _ in range(60):
        state, values = training.train_step(state, batch, teacher, procedure=procedure)
        losses.append(float(np.divide(*jax.device_get(values["loss"]))))
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.7 * losses[0]
    leaves = jax.tree.leaves((state.params, state.batch_stats))
    assert all(leaf.dtype == jnp.float32 and np.isfinite(leaf).all() for leaf in leaves)
    assert (state.batch_stats["layers_1_1"]["firing_rate_x"] > 0).all()


def test_tensor_parallelism_splits_hidden_channels_by_groups():
    model = snn.create_model("spikingresformer_ti_imagenet")
    variables = snn.models.variable_shapes(model, (224, 224, 3))
    family = snn.models.FAMILIES["spikingresformer"]
    mesh = jax.sharding.AbstractMesh((1, 4), ("data", "model"))
    placement = Placement(mesh, "tensor", family.tensor_rules)
    check_model(model.config, placement, family.divided)
    split = {}
    for path, place in jax.tree_util.tree_leaves_with_path(placement.shardings(variables)):
        if tuple(place.spec):
            name = jax.tree_util.keystr(path, simple=True, separator="/").split("/", 2)
            split.setdefault(name[2], []).append(tuple(place.spec))
    channels = [f"{norm}/bn/{x}" for norm in ("up_2", "conv_0_2") for x in ("bias", "scale")]
    channels += [f"{norm}/bn/{x}" for norm in ("up_2", "conv_0_2") for x in ("mean", "var")]
    expected = dict.fromkeys(channels, ("model",)) | {
        "up_1/kernel": (None, "model"),
        "conv_0_1/kernel": (None, None, None, "model"),
        "down_1/kernel": ("model", None),
    }
    assert split == {name: [spec] * 6 for name, spec in expected.items()}  # in each pair
    with pytest.raises(
        ValueError, match=r"model.hidden_groups=4 must be divisible by mesh.model=3"
    ):
        three = jax.sharding.AbstractMesh((1, 3), ("data", "model"))
        check_model(model.config, Placement(three, "tensor", family.tensor_rules), family.divided)


# ---------------------------------------------------------------- recordings


@pytest.fixture(scope="module")
def recorded(lively):
    """The form for DVS Gesture in small, on counts of events with their sum as a third channel."""
    model = snn.create_model("spikingresformer_dvsg", 3, time_steps=2, **SMALL)
    counts = np.random.default_rng(0).poisson(0.7, size=(2, 2, 8, 8, 2))
    counts = np.concatenate([counts, counts.sum(-1, keepdims=True)], -1)
    variables = jax.tree.map(np.array, lively(model))
    variables["params"]["prologue_1"]["bn"]["scale"] *= 0.5
    return model, variables, counts.astype(np.float32)


def test_recordings_are_deployed_and_counted(recorded, x64):
    model, variables, frames = recorded
    masked = in_float64(model, variables, frames)
    for schedule in schedules(masked.names, 2, 2, seed=3):
        deployed = snn.deploy(masked.model, masked.variables, schedule, recordings=True)
        logits = jax.jit(deployed._function, compiler_options=QUICKLY)(
            deployed.weights, masked.images
        )
        np.testing.assert_allclose(logits, masked.run(schedule)[0], rtol=1e-6, atol=1e-7)


def test_a_recording_is_not_one_frame_repeated(recorded):
    model, variables, frames = recorded
    report = snn.energy_report(model, variables, frames)
    stem = report.layers["prologue_0"]
    assert (stem.kind, stem.macs, stem.shape.repeats) == ("integers", 0, 1)
    taps_of = taps(np.moveaxis(frames, 1, 0), 3, 1) * 8 / 2
    assert stem.accumulates.sum() == pytest.approx(taps_of)


def test_time_constants_have_the_published_name(recorded):
    model, variables, _ = recorded
    published = golden_files.as_published(variables["params"])
    published |= golden_files.as_published(variables["batch_stats"])
    published = {name.replace("tau_logit", "w"): array for name, array in published.items()}
    assert sum(name.endswith(".w") for name in published) == 20
    given = snn.convert.from_torch(model, published)
    jax.tree.map(np.testing.assert_array_equal, given, variables)
    without = {name: w for name, w in published.items() if not name.endswith(".w")}
    with pytest.warns(UserWarning, match="'layers.0.0.activation_attn.w' and 19 others"):
        started = snn.convert.from_torch(model, without)
    assert started["params"]["layers_0_1"]["up_0"]["tau_logit"] == 0.0  # tau = 2
