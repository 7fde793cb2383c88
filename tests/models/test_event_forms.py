"""Forms for event cameras: the published numbers, sizes, deployment, energy, early exit."""

import dataclasses
import functools

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
from family_forms import tiers
from flax import traverse_util
from quickly import QUICKLY, quickly
from test_convert import run_train

import snnvit_jax as snn
from snnvit_jax import layers
from snnvit_jax.deployment import planning
from snnvit_jax.evaluation import early_exit
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import initial
from snnvit_jax.runs.workdir import Workdir
from snnvit_jax.time_steps.masks import SCORE, scores

SMALL = {"embed_dim": 32, "num_heads": 2, "mlp_ratio": 2.0, "image_size": 16}
POOL = {"pool": (True, True, False, False)}  # 4x4 tokens
FORMS = {
    "spikformer_2_256_dvs": SMALL | POOL | {"depth": 1},
    "spikingformer_2_256_dvs": SMALL | POOL | {"depth": 1},
    "sdt_2_256_dvs": SMALL | POOL | {"depth": 1},
    "qkformer_2_256_dvs": SMALL | {"image_size": 32, "depth": 2},
}


# ---------------------------------------------------------------- the published numbers


@pytest.fixture(scope="module", params=golden_files.EVENTS)
def golden(request):
    return golden_files.read(request.param)


def test_inference_is_the_published_one(golden):
    spikes = parity.assert_published_inference(golden)
    assert all(0 < emitted.mean() < 1 for emitted in spikes.values())


def test_a_training_step_is_the_published_one(golden):
    step = run_train(golden, "float32")
    parity.assert_published_step(golden, step, tolerance=1e-4, zero=1e-5)


def test_conversion_loses_nothing_but_what_is_never_used(golden):
    parity.assert_nothing_lost(golden)


# ---------------------------------------------------------------- another scale of the attention


def used(golden):
    return {name: w for name, w in golden.weights.items() if name not in golden.unused}


def test_weights_trained_with_another_scale_of_attention_are_refused_by_name():
    events, images = map(golden_files.read, ("spikformer_dvs_small", "spikformer_imagenet_small"))
    sizes = golden_files.DVS
    imagenet = snn.create_model("spikformer_8_384_imagenet", 10, **sizes)
    with pytest.raises(ValueError, match="unexpected=.*'pos_embed' is .*scaled by 0.25 and not"):
        snn.convert.from_torch(imagenet, events.weights)
    with pytest.raises(ValueError, match="fc1_conv.weight.*256, 64, 1. is .*'spikformer_2_256_dvs"):
        snn.convert.from_torch(imagenet, used(events))
    own = snn.create_model("spikformer_2_256_dvs", 10, **sizes)
    with pytest.raises(ValueError, match="fc1_conv.weight.*256, 64, 1, 1. is .*for ImageNet"):
        snn.convert.from_torch(own, images.weights)
    snn.convert.from_torch(own, used(events))


def test_a_run_does_not_start_from_one_with_another_scale_of_attention(tmp_path):
    config = config_lib.default_config()
    config.model.update({"name": "spikformer_2_256_dvs", "embed_dim": 32, "num_heads": 2})
    workdir = Workdir(tmp_path)
    workdir.prepare(0)
    workdir.write_config(config, 0)
    other = snn.create_model("spikformer_8_384_imagenet", embed_dim=32, num_heads=2, depth=2)
    with pytest.raises(ValueError, match="run of 'spikformer_2_256_dvs' with form=.*scale=0.25"):
        initial.load(tmp_path, other, {})


# ---------------------------------------------------------------- sizes

# name -> (settings beside the published ones, parameters, unused ones, layers), as published
SIZES = {
    "spikformer, CIFAR10-DVS": ("spikformer_2_256_dvs", {}, 10, 2_585_610, 18_944, 19),
    "spikingformer, CIFAR10-DVS": ("spikingformer_2_256_dvs", {}, 10, 2_568_714, 2_048, 18),
    "spikingformer, Gesture": ("spikingformer_2_256_dvs", {}, 11, 2_568_971, 2_048, 18),
    "sdt, CIFAR10-DVS": ("sdt_2_256_dvs", {}, 10, 2_566_794, 128, 19),
    "sdt, Gesture": (
        "sdt_2_256_dvs",
        {"dvs_mode": False, "image_size": 128, "pool": (False, True, True, True)},
        11,
        2_567_051,
        128,
        19,
    ),
    "qkformer, CIFAR10-DVS": ("qkformer_2_256_dvs", {}, 10, 1_504_138, 0, 21),
    "qkformer, Gesture": ("qkformer_2_256_dvs", {"mlp_ratio": 4.0}, 11, 1_999_371, 0, 21),
}


@pytest.mark.parametrize("form", SIZES)
def test_a_published_size_has_its_parameters_and_layers(form):
    name, settings, classes, count, unused, spiking = SIZES[form]
    model = snn.create_model(name, classes, time_steps=2, **settings)
    side = 64 if form == "sdt, CIFAR10-DVS" else 128
    assert model.config.image_size == (side, side)
    recordings = jax.ShapeDtypeStruct((2, 2, side, side, 2), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), recordings)
    params = traverse_util.flatten_dict(variables["params"], sep="/")
    assert sum(leaf.size for path, leaf in params.items() if SCORE not in path) == count - unused
    assert len(scores(variables["params"])) == spiking
    assert jax.eval_shape(model.apply, variables, recordings).shape == (2, classes)


def test_every_published_size_for_event_cameras_is_here():
    assert {size[0] for size in SIZES.values()} == set(FORMS)
    assert set(FORMS) == {name for name in snn.list_models() if name.endswith("_dvs")}


def test_only_spikingformer_has_another_time_constant():
    taus = {name: snn.create_model(name).config.neuron.tau for name in FORMS}
    assert taus == dict.fromkeys(FORMS, 2.0) | {"spikingformer_2_256_dvs": 1.5}


def test_what_does_not_fit_a_form_is_named():
    with pytest.raises(ValueError, match="dvs_mode='yes' must be True or False"):
        snn.create_model("sdt_2_256_dvs", dvs_mode="yes")
    with pytest.raises(ValueError, match="embed_dim=40 must be divisible by 16, and a half"):
        snn.create_model("qkformer_2_256_dvs", embed_dim=40)
    with pytest.raises(ValueError, match=r"depth=1 must be at least 2.*have \(1,\) blocks"):
        snn.create_model("qkformer_2_256_dvs", depth=1)


# ---------------------------------------------------------------- maxima of neighbours


def largest_around(x, axes):
    """Of [..., H, W, C]-like arrays, one window after the other, with the place it was found at."""
    rows, columns = (x.shape[axis] for axis in axes)
    x = np.moveaxis(x, axes, (0, 1))
    largest, gradient = np.empty_like(x), np.zeros_like(x)
    for i, j in np.ndindex(rows, columns):
        window = x[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
        flat = window.reshape(-1, *x.shape[2:])
        largest[i, j] = flat.max(0)
        for place in np.ndindex(*x.shape[2:]):  # the first of the largest in reading order
            at = np.unravel_index(flat[(slice(None), *place)].argmax(), window.shape[:2])
            gradient[(max(i - 1, 0) + at[0], max(j - 1, 0) + at[1], *place)] += 1 + i + 10 * j
    return np.moveaxis(largest, (0, 1), axes), np.moveaxis(gradient, (0, 1), axes)


@pytest.mark.parametrize("axes", [(1, 2), (1, 3)])
def test_maxima_of_neighbours_and_their_gradients(axes):
    x = np.random.default_rng(0).integers(0, 3, (2, 4, 3, 5)).astype(np.float32)  # many are equal
    expected, gradient = largest_around(x, axes)
    i, j = (np.arange(x.shape[a]).reshape([-1 if n == a else 1 for n in range(4)]) for a in axes)
    pool = layers.Dilate(axes=tuple(a - 4 for a in axes))
    found, back = jax.vjp(pool, jnp.asarray(x))
    np.testing.assert_array_equal(found, expected)
    given = np.broadcast_to(1 + i + 10 * j, x.shape).astype(np.float32)
    np.testing.assert_array_equal(back(jnp.asarray(given))[0], gradient)


# ---------------------------------------------------------------- small models that fire


@functools.cache
def small(name, lively, dtype="float32", time_steps=3):
    """(model, variables that make it fire, recordings of small counts, layer names)."""
    model = snn.create_model(name, 3, time_steps=time_steps, **FORMS[name])
    flat = traverse_util.flatten_dict(lively(model, channels=2))
    shift = {"proj_bn": 0.5, "fc2_bn": 1.0, "mlp2_bn": 1.0, "rpe_bn": 0.5}
    for path in flat:  # not every neuron at every step
        if path[-1] == "bias" and path[-2].endswith(("_bn", "_bn1", "_bn2", "_bn3")):
            flat[path] = flat[path] - shift.get(path[-2], 0.5)
    variables = traverse_util.unflatten_dict(flat)
    side = FORMS[name]["image_size"]
    recordings = np.random.default_rng(0).poisson(0.5, (2, time_steps, side, side, 2))
    if dtype != "float32":
        model = type(model)(dataclasses.replace(model.config, dtype=jnp.dtype(dtype)))
        variables = jax.tree.map(lambda x: np.asarray(x, dtype), variables)
    return model, variables, recordings.astype(dtype), list(scores(variables["params"]))


def spikes_of(model, variables, recordings):
    _, seen = quickly(lambda v, x: model.apply(v, x, mutable=["spikes"]), variables, recordings)
    return {name: np.asarray(s, np.int64) for name, s in snn.spikes(seen).items()}


@pytest.mark.parametrize("name", tiers(FORMS, "spikformer_2_256_dvs", "sdt_2_256_dvs"))
def test_deployed_with_recordings_it_is_the_masked_model(name, lively, x64):
    model, variables, recordings, names = small(name, lively, "float64")
    masked = jax.jit(lambda v: model.apply(v, recordings), compiler_options=QUICKLY)
    rng = np.random.default_rng(len(name))
    logits = []
    for density in (0.4, 0.7):
        chosen = {layer: rng.random(3) < density for layer in names}
        schedule = snn.TimeStepSchedule(chosen)
        logits.append(masked(snn.with_schedule(variables, schedule)))
        deployed = snn.deploy(model, variables, schedule, recordings=True)
        found = quickly(deployed._function, deployed.weights, jnp.asarray(recordings))
        np.testing.assert_allclose(found, logits[-1], rtol=1e-6, atol=1e-7)
    assert not np.allclose(*logits)


@pytest.mark.parametrize("name", tiers(FORMS, "spikformer_2_256_dvs", "qkformer_2_256_dvs"))
def test_a_frame_that_nobody_listens_to_is_not_read(name, lively):
    model, variables, recordings, names = small(name, lively)
    first = {layer: [1, 0, 0] for layer in names}
    tracer = planning.trace(model, jax.device_get(variables), recordings.shape[1:])
    effects = planning.effects(tracer, {n: np.array(m, bool) for n, m in first.items()}, 3)
    steps = {node.path: effects.computed(i) for i, node in enumerate(tracer.nodes)}
    assert steps[model.config.input_layer] == (0,)


def test_a_step_of_three_does_a_third_of_the_work(lively):
    model, variables, recordings, names = small("spikformer_2_256_dvs", lively)
    first = {layer: [1, 0, 0] for layer in names}
    deployed = snn.deploy(model, variables, snn.TimeStepSchedule(first), recordings=True)
    whole = snn.deploy(model, variables, recordings=True)
    assert deployed.flops(1) < 0.36 * whole.flops(1)
    later = recordings.copy()
    later[:, 1:] = 7
    run = jax.jit(deployed._function, compiler_options=QUICKLY)
    np.testing.assert_array_equal(run(deployed.weights, recordings), run(deployed.weights, later))


def test_a_file_takes_any_number_of_recordings(lively, tmp_path):
    model, variables, recordings, names = small("sdt_2_256_dvs", lively)
    schedule = snn.TimeStepSchedule({layer: [1, 0, 1] for layer in names})
    deployed = snn.deploy(model, variables, schedule, recordings=True)
    deployed.save(tmp_path / "model.snn")
    loaded = snn.load_deployed(tmp_path / "model.snn")
    for batch in (recordings, recordings[:1]):
        np.testing.assert_allclose(loaded(batch), deployed(batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", tiers(["spikformer_2_256_dvs", "sdt_2_256_dvs"], "sdt_2_256_dvs"))
def test_stopping_after_a_step_is_a_model_of_a_shorter_recording(name, lively):
    model, variables, recordings, _ = small(name, lively)
    running = quickly(lambda v, x: early_exit.running_logits(model, v, x), variables, recordings)
    shorter = type(model)(dataclasses.replace(model.config, time_steps=2))
    expected = quickly(shorter.apply, snn.with_time_steps(variables, 2), recordings[:, :2])
    np.testing.assert_allclose(running[1], expected, 1e-5, 1e-5)
    assert not np.allclose(running[1], running[2])


# ---------------------------------------------------------------- energy


def taps(x, features):
    """Accumulates of a 3x3 convolution, of units [T, B, H, W, C]."""
    *_, H, W, _ = x.shape
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)])
    windows = [padded[:, :, i : i + H, j : j + W] for i in range(3) for j in range(3)]
    return features * sum(window.sum() for window in windows)


@pytest.mark.parametrize(
    "name", tiers(["spikformer_2_256_dvs", "qkformer_2_256_dvs"], "spikformer_2_256_dvs")
)
def test_the_embedding_of_events_costs_accumulates_alone(name, lively):
    model, variables, recordings, _ = small(name, lively)
    report = snn.energy_report(model, variables, recordings)
    embedding = report.layers[model.config.input_layer]
    features = variables["params"]["patch_embed1" if "qk" in name else "patch_embed"]
    features = features[model.config.input_layer.split("/")[1]]["kernel"].shape[-1]
    expected = taps(np.moveaxis(recordings, 1, 0), features)
    assert (embedding.macs, embedding.kind) == (0, "integers")
    assert 2 * embedding.accumulates.sum() == pytest.approx(expected)
    assert embedding.shape.repeats == 1  # each step has its own frame
    others = [layer.macs for n, layer in report.layers.items() if n != "head"]
    assert sum(others) == 0


def test_an_sdt_for_events_counted_by_hand(lively):
    model, variables, recordings, _ = small("sdt_2_256_dvs", lively)
    report = snn.energy_report(model, variables, recordings)
    spikes = spikes_of(model, variables, recordings)
    q, k, v = (spikes[f"block_0/attn/{name}_lif"] for name in "qkv")
    T, B, N, D = q.shape
    k, v = (largest_around(x.reshape(T, B, 4, 4, D), (2, 3))[0].reshape(q.shape) for x in (k, v))

    def spread(x):
        return largest_around(x.reshape(T, B, N, 2, D // 2), (2, 4))[0].reshape(x.shape)

    kv = spread(k * v)
    gated = q * spikes["block_0/attn/talking_heads_lif"]
    expected = {"token_sum": kv.sum(), "gate": gated.sum(), "proj_conv": spread(gated).sum() * D}
    assert all(0 < x.mean() < 1 for x in (kv, gated, spread(gated)))
    found = {n: B * report.layers[f"block_0/attn/{n}"].accumulates.sum() for n in expected}
    assert found == pytest.approx(expected)
    # The neuron reads these sums: its spikes are those of a scan over them.
    emitted = snn.lif_scan(jnp.float32(kv.sum(2, keepdims=True)), threshold=0.5)
    np.testing.assert_array_equal(emitted, spikes["block_0/attn/talking_heads_lif"])
