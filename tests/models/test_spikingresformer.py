"""SpikingResformer: the published numbers, sizes, refusals, rates, deployment, energy and more."""

import dataclasses

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
from flax import traverse_util
from quickly import QUICKLY
from test_convert import run_train
from test_deploy import Masked, assert_deployed_equals_masked, schedules

import snnvit_jax as snn
from snnvit_jax import layers
from snnvit_jax.evaluation import early_exit
from snnvit_jax.neurons import LIFNeuron
from snnvit_jax.neurons.kinds import IFNeuron, PLIFNeuron, ReLUNeuron
from snnvit_jax.report import page_tables
from snnvit_jax.runs import initial
from snnvit_jax.time_steps import masks
from snnvit_jax.time_steps.masks import SCORE

FILE = "spikingresformer_small"
IMAGE = (32, 32, 3)


@pytest.fixture(scope="module")
def golden():
    return golden_files.read(FILE)


# ---------------------------------------------------------------- the published numbers


def test_inference_is_the_published_one(golden):
    spikes = parity.assert_published_inference(golden)
    assert all(0 < emitted.mean() < 1 for emitted in spikes.values())


def test_a_training_step_is_the_published_one(golden):
    step = run_train(golden, "float32")
    parity.assert_published_step(golden, step, tolerance=1e-5, zero=0)
    assert sum("firing_rate" in name for name in step.running) == 8


# ---------------------------------------------------------------- conversion


def test_conversion_loses_nothing(golden):
    assert golden.unused == []
    rates = parity.assert_nothing_lost(golden)["batch_stats"]["layers_2_1"]
    assert rates["firing_rate_x"].shape == rates["firing_rate_attn"].shape == (4,)


def test_whatever_is_missing_extra_or_of_another_shape_is_named(golden):
    chosen = [n for n in golden.weights if n.startswith(("layers.2.1.", "layers.1.0", "class"))]
    assert len(chosen) > 15
    beyond = ("layers.2.5.W.weight", "classifier.bias", "layers.0.0.activation_in.w")
    parity.assert_misfits_are_named(golden, chosen, beyond)


def test_rates_of_another_shape_or_sign_are_named(golden):
    model, rate = golden.model(), "layers.1.1.firing_rate_x"
    for shape in ((1, 1, 3, 1, 1), (1, 2, 1, 1, 1), (1, 1, 2, 1)):
        with pytest.raises(ValueError, match=f"'{rate}' is "):
            snn.convert.from_torch(model, golden.weights | {rate: np.zeros(shape)})
    with pytest.raises(ValueError, match="'layers.1.1.firing_rate_x' holds a negative rate, -0.1"):
        snn.convert.from_torch(model, golden.weights | {rate: np.full((1, 1, 2, 1, 1), -0.1)})


def test_a_head_for_other_classes_starts_anew_in_both_names(golden):
    model = dataclasses.replace(golden.model().config, num_classes=3)
    model = type(golden.model())(model)
    own = jax.tree.map(
        lambda leaf: np.full(leaf.shape, 7.0, np.float32), snn.models.variable_shapes(model, IMAGE)
    )
    given = snn.convert.from_torch(golden.model(), golden.weights)
    flat = traverse_util.flatten_dict(given, sep="/")
    for tensors in (golden.weights, flat):
        found = initial._from_names(tensors, model, own)
        np.testing.assert_array_equal(found["params"]["classifier"]["kernel"], np.full((64, 3), 7))
        stem = found["params"]["prologue_0"]["kernel"]
        np.testing.assert_array_equal(stem, given["params"]["prologue_0"]["kernel"])


# ---------------------------------------------------------------- sizes

# name -> (channels, heads, channels of a head, classes, parameters, rates)
SIZES = {
    "spikingresformer_cifar": ((64, 192, 384), (1, 3, 6), 64, 10, 10_793_152, 50),
    "spikingresformer_ti_imagenet": ((64, 192, 384), (1, 3, 6), 64, 1000, 11_180_992, 50),
    "spikingresformer_s_imagenet": ((64, 256, 512), (1, 4, 8), 64, 1000, 17_813_824, 66),
    "spikingresformer_m_imagenet": ((64, 384, 768), (1, 6, 12), 64, 1000, 35_601_472, 98),
    "spikingresformer_l_imagenet": ((128, 512, 1024), (2, 8, 16), 64, 1000, 60_375_680, 132),
    "spikingresformer_dvsg": ((32, 96, 192), (1, 3, 6), 32, 11, 2_709_830, 50),
}
ATTENTION = ["activation_in", "activation_attn", "activation_out"]
FEED_FORWARD = ["up_0", "conv_0_0", "down_0"]


def layers_of(depth):
    """Names of the spiking layers in forward order."""
    for stage, pairs in enumerate(depth):
        yield from [f"layers_{stage}_0/activation"] if stage else []
        for pair in range(pairs):
            number = 2 * pair + bool(stage)
            yield from (f"layers_{stage}_{number}/{name}" for name in ATTENTION)
            yield from (f"layers_{stage}_{number + 1}/{name}" for name in FEED_FORWARD)


@pytest.mark.parametrize("name", SIZES)
def test_a_published_size_has_its_parameters_and_layers(name):
    embed_dim, num_heads, head_dim, classes, count, rates = SIZES[name]
    model, events = snn.create_model(name, num_classes=classes), name.endswith("dvsg")
    config = model.config
    assert (config.embed_dim, config.num_heads, config.depth) == (embed_dim, num_heads, (1, 2, 3))
    assert {d // h for d, h in zip(embed_dim, num_heads, strict=True)} == {head_dim}
    assert (config.patch_size, config.mlp_ratio) == ((4, 2, 1), 4)
    assert config.group_size == (32 if events else 64)
    kind = PLIFNeuron if events else LIFNeuron
    assert config.neuron == kind(surrogate="arctan", tau=2.0, reset="hard", detach_reset=True)
    side = {"cifar": 32, "dvsg": 64}.get(name.split("_")[1], 224)
    assert config.image_size == (side, side)
    tokens = {32: 64, 64: 256, 224: 196}[side]
    assert [config.tokens(stage) for stage in range(3)] == [tokens] * 3
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    params, stats = (
        {path: leaf.size for path, leaf in traverse_util.flatten_dict(tree, sep="/").items()}
        for tree in (variables["params"], variables["batch_stats"])
    )
    assert sum(size for path, size in params.items() if SCORE not in path) == count
    assert sum(size for path, size in stats.items() if "firing_rate" in path) == rates
    names = snn.layer_names(model)
    assert names == list(layers_of((1, 2, 3)))
    assert len(names) == 38
    assert {path.removesuffix(f"/{SCORE}") for path in params if SCORE in path} == set(names)
    assert sum(path.endswith("tau_logit") for path in params) == (38 if events else 0)


def test_every_published_size_is_here():
    assert list(SIZES) == list(snn.models.FAMILIES["spikingresformer"].sizes)


def test_images_of_224_pixels_have_196_patches_in_every_stage():
    model = snn.create_model("spikingresformer_ti_imagenet", depth=(1, 1, 1))
    shapes = {}

    def trace(images):
        variables = model.init(jax.random.key(0), images)
        seen = model.apply(variables, images, mutable=["spikes"])[1]
        shapes.update({name: s.shape[2:] for name, s in snn.spikes(seen).items()})

    jax.eval_shape(trace, jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    assert shapes["layers_0_0/activation_attn"] == (1, 196, 56 * 56)
    assert shapes["layers_1_1/activation_attn"] == (3, 196, 28 * 28)
    assert shapes["layers_2_1/activation_attn"] == (6, 196, 14 * 14)
    assert shapes["layers_0_0/activation_in"] == (56, 56, 64)
    assert shapes["layers_2_2/conv_0_0"] == (14, 14, 4 * 384)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embed_dim": 64}, "embed_dim=64 must be a tuple of 3, each a whole number"),
        ({"num_heads": (1, 3)}, r"num_heads=\(1, 3\) must be a tuple of 3,"),
        ({"num_heads": (1, 5, 6)}, r"divisible by num_heads=\(1, 5, 6\), stage by stage"),
        ({"depth": (1, 2, 0)}, r"depth=\(1, 2, 0\) must be a tuple of 3,"),
        ({"patch_size": (3, 2, 1)}, r"image_size=\(32, 32\) must be divisible by 3: stage 1"),
        ({"image_size": 36, "patch_size": (2, 2, 2)}, r"image_size=\(36, 36\).*by 8: stage 3"),
        ({"image_size": (32.5, 32)}, r"image_size=\(32.5, 32\) must be a tuple of 2,"),
        ({"group_size": 48}, "divisible by group_size=48; stage 1 has 256 channels"),
        ({"group_size": 0}, "group_size=0 must be a whole number, at least 1, or a tuple of 3"),
        ({"group_size": (64, 0, 64)}, r"group_size=\(64, 0, 64\) must be .*, or a tuple of 3"),
        ({"mlp_ratio": 0.001}, "mlp_ratio=0.001"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
        ({"remat": "all"}, "remat='all'"),
        ({"pool": (True,) * 4}, r"unknown model settings \['pool'\]"),
        ({"stem": "imagenet"}, r"unknown model settings \['stem'\]"),
    ],
)
def test_what_does_not_fit_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        snn.create_model("spikingresformer_cifar", **settings)


def test_neurons_that_are_not_described_are_the_published_ones():
    def neuron(given):
        return snn.create_model("spikingresformer_cifar", neuron=given).config.neuron

    assert neuron({"reset": "soft"}) == LIFNeuron(surrogate="arctan", reset="soft")
    assert neuron({"kind": "plif", "surrogate": None}) == PLIFNeuron(surrogate="arctan")
    assert neuron({"surrogate": "sigmoid"}) == LIFNeuron()
    assert neuron(LIFNeuron()) == LIFNeuron()
    assert snn.create_model("sdt_2_256", neuron={"kind": "plif"}).config.neuron == PLIFNeuron()
    events = snn.create_model("spikingresformer_dvsg", neuron={"kind": None}).config.neuron
    assert events == PLIFNeuron(surrogate="arctan")


# ---------------------------------------------------------------- firing rates


def test_rates_are_those_of_the_batch_first_and_a_running_mean_then():
    spikes = np.random.default_rng(0).random((2, 3, 5, 4, 6)) < 0.3  # B T N heads d
    spikes[..., 1, :] = False  # a silent head
    now = spikes.mean((0, 1, 2, 4))
    values = jnp.asarray(spikes, jnp.float32)
    first = layers.running_rate(jnp.zeros(4), values, -2)
    np.testing.assert_allclose(first, now, 1e-6)
    one_head = jnp.array([0.0, 0.0, 0.5, 0.0])  # not all zero: no first batch any more
    np.testing.assert_allclose(
        layers.running_rate(one_head, values, 3), 0.999 * one_head + 0.001 * now, 1e-5
    )
    scale = layers.RateScale(count=9, axes=2)(jnp.array([0.25, 1.0, 0.0]))
    assert scale.shape == (3, 1, 1)
    np.testing.assert_allclose(scale.ravel(), [2 / 3, 1 / 3, 1 / 3], 1e-6)


def test_no_gradient_flows_through_a_rate():
    def current(spikes):
        rate = layers.running_rate(jnp.zeros(2), spikes, -2)
        return layers.RateScale(3)(rate).sum()

    assert not jax.grad(current)(jnp.ones((1, 1, 5, 2, 3))).any()
    assert not jax.grad(lambda rate: layers.RateScale(3)(rate).sum())(jnp.ones(2)).any()


# ---------------------------------------------------------------- what is made of it

SMALL = {
    **{"embed_dim": (8, 8, 16), "num_heads": (1, 2, 2), "depth": (1, 1, 1), "group_size": 8},
    **{"mlp_ratio": 2.0, "image_size": 8},
}


@pytest.fixture(scope="module")
def small(lively):
    """A model in which every layer fires, its variables and images."""
    model = snn.create_model("spikingresformer_cifar", 3, time_steps=3, **SMALL)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    return model, lively(model), images


@pytest.fixture(scope="module")
def spikes(small):
    """{layer name: spikes [T, B, ...]} of the small model."""
    model, variables, images = small
    apply = jax.jit(lambda v, x: model.apply(v, x, mutable=["spikes"]), compiler_options=QUICKLY)
    seen = snn.spikes(apply(variables, images)[1])
    found = {name: np.asarray(emitted) for name, emitted in seen.items()}
    assert all(0 < emitted.mean() < 1 for emitted in found.values())
    return found


def in_float64(model, variables, images, **settings):
    """A `Masked` model, as the tests of deployment want it."""
    config = dataclasses.replace(model.config, dtype=jnp.dtype("float64"), **settings)
    model = type(model)(config)
    variables = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
    with jax.enable_x64(True):
        apply = jax.jit(
            lambda v: model.apply(v, images, mutable=["spikes"]), compiler_options=QUICKLY
        )

    def run(schedule):
        logits, seen = apply(snn.with_schedule(variables, schedule))
        return np.asarray(logits), {n: np.asarray(s) for n, s in snn.spikes(seen).items()}

    names = list(masks.scores(variables["params"]))
    return Masked(model, variables, images.astype(np.float64), names, run)


@pytest.fixture(scope="module")
def masked(small):
    return in_float64(*small)


@pytest.mark.slow
def test_deployed_it_equals_the_masked_model(masked, x64):
    for schedule in schedules(masked.names, 3, 2):
        assert_deployed_equals_masked(masked, schedule)
    # Some layers silent, others not: constants flow on, operands of products are made whole.
    for off in ("activation_in", "up_0", "activation_attn"):
        masks_of = {name: [0, 0, 0] if off in name else [1, 0, 1] for name in masked.names}
        assert_deployed_equals_masked(masked, snn.TimeStepSchedule(masks_of))


@pytest.mark.slow
@pytest.mark.parametrize("neuron", [PLIFNeuron(tau=2.5, reset="soft"), IFNeuron(), ReLUNeuron()])
def test_deployed_with_other_neurons_it_equals_the_masked_model(neuron, lively, x64):
    model = snn.create_model("spikingresformer_cifar", 3, time_steps=2, neuron=neuron, **SMALL)
    images = np.random.default_rng(0).normal(size=(1, 8, 8, 3))
    masked = in_float64(model, lively(model), images)
    for schedule in schedules(masked.names, 2, 1, seed=5):
        assert_deployed_equals_masked(masked, schedule)


def test_rate_scales_are_part_of_one_linear_map(small):
    model, variables, _ = small
    weights = snn.deploy(model, variables).weights
    assert not any(name.endswith("/factor") or "scale" in name for name in weights)
    block = jax.tree.map(np.float64, variables["params"]["layers_1_1"])
    stats = jax.tree.map(np.float64, variables["batch_stats"]["layers_1_1"])
    factor = block["norm"]["bn"]["scale"] / np.sqrt(stats["norm"]["bn"]["var"] + 1e-5)
    x, attn = (1 / np.sqrt(stats[f"firing_rate_{name}"] * n) for name, n in (("x", 4), ("attn", 4)))
    # Two heads of four channels, four patches: of each head four channels of y, then four of z.
    factor = factor * np.repeat(np.stack([x, attn], 1).ravel(), 4)
    np.testing.assert_allclose(weights["layers_1_1/W/kernel"], block["W"]["kernel"] * factor, 1e-6)
    constant = (block["norm"]["bn"]["bias"] - stats["norm"]["bn"]["mean"] * 1.0).reshape(2, 2, 4)
    found = weights["layers_1_1/attention_values/operand_0"]
    np.testing.assert_allclose(found, np.tile(constant[:, 1] * attn[:, None], (4, 1, 1)), 1e-5)


@pytest.mark.slow
def test_flops_fall_with_the_steps_that_all_layers_share(golden):
    model = golden.model()
    variables = snn.convert.from_torch(model, golden.weights)
    half = snn.TimeStepSchedule({name: [1, 1, 0, 0] for name in snn.layer_names(model)})
    flops = snn.deploy(model, variables, half).flops(batch_size=1)
    assert flops <= 0.56 * snn.deploy(model, variables).flops(batch_size=1)


def test_a_file_needs_no_code_of_the_family(small, tmp_path):
    model, variables, images = small
    half = snn.TimeStepSchedule({name: [0, 1, 0] for name in snn.layer_names(model)})
    deployed = snn.deploy(model, variables, half)
    deployed.save(tmp_path / "model.snn")
    loaded = snn.load_deployed(tmp_path / "model.snn")
    np.testing.assert_allclose(loaded(images), deployed(images), 1e-6, 1e-6)
    assert loaded.about["family"] == "spikingresformer"


@pytest.mark.slow
def test_stopping_after_a_step_gives_what_a_shorter_model_gives(small):
    model, variables, images = small
    running = jax.jit(
        lambda v, x: early_exit.running_logits(model, v, x), compiler_options=QUICKLY
    )(variables, images)
    for steps in (1, 3):
        shorter = type(model)(dataclasses.replace(model.config, time_steps=steps))
        expected = jax.jit(shorter.apply, compiler_options=QUICKLY)(
            snn.with_time_steps(variables, steps), images
        )
        np.testing.assert_allclose(running[steps - 1], expected, 1e-5, 1e-5)


# ---------------------------------------------------------------- energy


def taps(emitted, kernel, stride):
    """How many windows see each spike of [T, B, H, W, C], summed; one window after the other."""
    n, total = kernel // 2, 0
    padded = np.pad(emitted, ((0, 0), (0, 0), (n, n), (n, n), (0, 0)))
    for row in range(0, emitted.shape[2], stride):
        for column in range(0, emitted.shape[3], stride):
            total += padded[:, :, row : row + kernel, column : column + kernel].sum()
    return total


def brute_force(spikes):
    """{layer: accumulates} of an image, of the SMALL model."""
    ac = {}
    for stage, (width, heads) in enumerate(zip((8, 8, 16), (1, 2, 2), strict=True)):
        number = 1 if stage else 0
        if stage:
            fired = spikes[f"layers_{stage}_0/activation"]
            ac[f"layers_{stage}_0/conv"] = taps(fired, 3, 2) * width
        layer = f"layers_{stage}_{number}"
        fired = {name: spikes[f"{layer}/{name}"] for name in ATTENTION}
        ac[f"{layer}/W"] = fired["activation_in"].sum() * 2 * width  # patches do not overlap
        ac[f"{layer}/attention_map"] = fired["activation_in"].sum() * 4  # patches
        ac[f"{layer}/attention_values"] = fired["activation_attn"].sum() * width // heads
        ac[f"{layer}/Wproj"] = fired["activation_out"].sum() * width
        layer = f"layers_{stage}_{number + 1}"
        ac[f"{layer}/up_1"] = spikes[f"{layer}/up_0"].sum() * 2 * width
        ac[f"{layer}/conv_0_1"] = taps(spikes[f"{layer}/conv_0_0"], 3, 1) * 8  # of its group
        ac[f"{layer}/down_1"] = spikes[f"{layer}/down_0"].sum() * width
    return {name: count / 2 for name, count in ac.items()}


def test_energy_is_that_of_a_count_one_by_one(small, spikes):
    report, ac = snn.energy_report(*small), brute_force(spikes)
    mac = {"prologue_0": 8 * 8 * 9 * 3 * 8, "classifier": 16 * 3}
    assert report.layers.keys() == ac.keys() | mac.keys()
    assert {n: report.layers[n].accumulates.sum() for n in ac} == pytest.approx(ac)
    assert {n: report.layers[n].macs for n in report.not_spiking} == mac
    nanojoule = 0.9 * sum(ac.values()) + 4.6 * sum(mac.values())
    assert report.microjoule == pytest.approx(nanojoule * 1e-6)
    # Nothing here is a small integer: both conventions give the same, and say what is real.
    assert report.under(integers="multiply").microjoule == report.microjoule
    products = [n for n in ac if "attention_" in n]
    assert set(report.not_binary) == {f"{n}: y" for n in products} | {f"{n}: input" for n in mac}
    assert {operand.kind for operand in report.not_binary.values()} == {"real"}
    by_rate = {name: layer.by_rate.sum() for name, layer in report.layers.items()}
    assert [by_rate[name] for name in products] == pytest.approx([ac[name] for name in products])
    assert "6 products add real numbers" in page_tables.verdict(report)


def test_without_spikes_the_products_multiply(lively):
    model = snn.create_model(
        "spikingresformer_cifar", 3, time_steps=1, neuron={"kind": "relu"}, **SMALL
    )
    report = snn.energy_report(model, lively(model), np.ones((1, 8, 8, 3), np.float32))
    layer = report.layers["layers_0_0/attention_map"]
    assert (layer.kind, layer.macs, layer.accumulates.sum()) == ("real", 4 * 64 * 8, 0)
