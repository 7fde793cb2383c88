"""Meta-SpikeFormer: the published numbers, sizes, refusals, merged chains and energy."""

import dataclasses

import flax.linen as nn
import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
from flax import traverse_util
from quickly import QUICKLY
from test_convert import assert_same_spikes, run_train
from test_deploy import Masked, assert_deployed_equals_masked, schedules

import snnvit_jax as snn
from snnvit_jax.time_steps import masks
from snnvit_jax.time_steps.masks import SCORE

FILE = "metaspikeformer_small"


@pytest.fixture(scope="module")
def golden():
    return golden_files.read(FILE)


# ---------------------------------------------------------------- the published numbers


def test_inference_is_the_published_one(golden):
    parity.assert_published_inference(golden)


def assert_published_step(golden, step, tolerance, zero):
    # Scales of a normalisation before a normalisation: their gradient exists through 1e-5 only.
    eps_only = golden.meta["eps_only_grads"]
    assert len(eps_only) == 12
    for name in eps_only:
        np.testing.assert_allclose(step.gradients[name], golden.train.gradients[name], 0, zero)
    meta = golden.meta | {"near_zero_grads": [*golden.meta["near_zero_grads"], *eps_only]}
    parity.assert_published_step(dataclasses.replace(golden, meta=meta), step, tolerance, zero)


def test_a_training_step_is_the_published_one(golden):
    assert_published_step(golden, run_train(golden, "float32"), tolerance=1e-4, zero=1e-5)


@pytest.mark.slow
def test_a_training_step_in_float64_agrees_more_closely(golden, x64):
    assert_published_step(golden, run_train(golden, "float64"), tolerance=1e-6, zero=1e-9)


def test_every_layer_of_the_file_fires_somewhere(golden):
    assert all(0 < spikes.mean() < 1 for spikes in golden.eval.spikes.values())


# ---------------------------------------------------------------- conversion


def test_conversion_loses_nothing(golden):
    assert golden.unused == []
    parity.assert_nothing_lost(golden)


def test_whatever_is_missing_extra_or_of_another_shape_is_named(golden):
    beyond = [n.replace("block4.0.", "block4.1.") for n in golden.weights if "block4.0." in n]
    beyond += ["block3.0.norm1.weight", "downsample1.1.encode_conv.weight"]
    parity.assert_misfits_are_named(golden, golden.weights, beyond)


def test_a_head_of_distillation_is_refused_with_what_to_do(golden):
    extra = {"head_kd.weight": np.zeros((10, 64)), "head_kd.bias": np.zeros(10)}
    with pytest.raises(ValueError, match=r"'head_kd.weight'\]; 'head_kd' is the second head.*/ 2"):
        snn.convert.from_torch(golden.model(), golden.weights | extra)


def test_weights_from_before_the_change_read_the_mean_of_the_currents(golden):
    before = golden.model(head_input="currents")
    variables = snn.convert.from_torch(before, golden.weights)
    assert "lif" not in variables["params"]
    mean = {}

    def see_head(call, args, kwargs, context):
        if context.module.name == "head" and context.method_name == "__call__":
            mean["read"] = args[0].values
        return call(*args, **kwargs)

    def run(v, x):
        with nn.intercept_methods(see_head):
            logits, seen = before.apply(v, x, mutable=["spikes"])
        return logits, snn.spikes(seen), mean.pop("read")

    logits, spikes, read = jax.jit(run)(variables, golden.images)
    expected = {name: s for name, s in golden.eval.spikes.items() if name != "lif"}
    assert_same_spikes({name: np.asarray(spikes.pop(name)) for name in expected}, expected)
    assert not spikes
    # The neuron that is left out would have made the published spikes of what the head reads.
    emitted = snn.lif_scan(jnp.moveaxis(jnp.mean(read, (2, 3)), 1, 0))
    np.testing.assert_array_equal(emitted, golden.eval.spikes["lif"])
    weight, bias = golden.weights["head.weight"], golden.weights["head.bias"]
    np.testing.assert_allclose(logits, np.mean(read, (1, 2, 3)) @ weight.T + bias, 1e-4, 1e-5)


# ---------------------------------------------------------------- sizes

SIZES = {
    "metaspikeformer_8_384_imagenet": ((96, 192, 384, 480), 31_333_864),
    "metaspikeformer_8_512_imagenet": ((128, 256, 512, 640), 55_350_248),
    "metaspikeformer_8_768_imagenet": ((192, 384, 768, 960), 123_741_160),
}
CONV_BLOCKS = [f"ConvBlock{name}_0" for name in ("1_1", "1_2", "2_1", "2_2")]
CONV_LIFS = ["Conv/lif1", "Conv/lif2", "lif1", "lif2"]
BLOCK_LIFS = [f"attn/{name}_lif" for name in ("head", "q", "k", "v", "attn")]
BLOCK_LIFS += ["mlp/fc1_lif", "mlp/fc2_lif"]


def layers_of(depth):
    """Names of the spiking layers in forward order."""
    before = {"ConvBlock1_2_0": "downsample1_2", "ConvBlock2_1_0": "downsample2"}
    for block in CONV_BLOCKS:
        yield from [f"{before[block]}/encode_lif"] if block in before else []
        yield from (f"{block}/{name}" for name in CONV_LIFS)
    for stage, blocks in zip((3, 4), depth, strict=True):
        yield f"downsample{stage}/encode_lif"
        yield from (f"block{stage}_{i}/{name}" for i in range(blocks) for name in BLOCK_LIFS)
    yield "lif"


@pytest.mark.parametrize("name", SIZES)
def test_a_published_size_has_its_parameters_and_layers(name):
    embed_dim, count = SIZES[name]
    model = snn.create_model(name, num_classes=1000)
    config = model.config
    assert (config.embed_dim, config.depth, config.num_heads) == (embed_dim, (6, 2), 8)
    assert (config.image_size, config.mlp_ratio, config.head_input) == ((224, 224), 4, "spikes")
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    params = traverse_util.flatten_dict(variables["params"], sep="/")
    assert sum(leaf.size for path, leaf in params.items() if SCORE not in path) == count
    names = snn.layer_names(model)
    assert names == list(layers_of((6, 2)))
    assert len(names) == 77
    assert {path.removesuffix(f"/{SCORE}") for path in params if SCORE in path} == set(names)


def test_every_published_size_is_here():
    assert list(SIZES) == list(snn.models.FAMILIES["metaspikeformer"].sizes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embed_dim": 64}, "embed_dim=64 must be a tuple of 4, each a whole number"),
        ({"embed_dim": (16, 32, 48)}, r"embed_dim=\(16, 32, 48\) must be a tuple of 4,"),
        ({"embed_dim": (15, 32, 48, 64)}, "must begin with an even number"),
        ({"num_heads": 5}, "must end with two numbers divisible by num_heads=5"),
        ({"depth": 8}, "depth=8 must be a tuple of 2, each a whole number, at least 1"),
        ({"depth": (6, 0)}, r"depth=\(6, 0\)"),
        ({"image_size": 40}, r"image_size=\(40, 40\) .* divisible by the patch stride 16"),
        ({"mlp_ratio": 0.01}, "mlp_ratio=0.01"),
        ({"head_input": "mean"}, "head_input='mean' must be one of spikes, currents"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
        ({"remat": "all"}, "remat='all'"),
        ({"pool": (True,) * 4}, r"unknown model settings \['pool'\]"),
    ],
)
def test_what_does_not_fit_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        snn.create_model("metaspikeformer_8_384_imagenet", **settings)


# ---------------------------------------------------------------- what is made of it


@pytest.fixture(scope="module")
def small(lively):
    """A model in which every layer fires, its variables and images."""
    model = snn.create_model("metaspikeformer_8_512_imagenet", 3, time_steps=3, **SMALL)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    variables = lively(model)
    for block in ("block3_0", "block4_0"):  # the neurons behind a product fire
        for name in "qkv":
            variables["params"][block]["attn"][f"{name}_conv_1"]["bias"] += 1.5
    # Some neurons before the head fire at some steps, neither always nor never.
    variables["params"]["block4_0"]["mlp"]["fc2_bn"]["bias"] -= 5.0
    return model, variables, images


SMALL = {"embed_dim": (4, 4, 8, 8), "num_heads": 2, "depth": (1, 1), "image_size": 32}


@pytest.fixture(scope="module")
def masked(small):
    """The same in float64, as the tests of deployment want it."""
    model, variables, images = small
    model = type(model)(dataclasses.replace(model.config, dtype=jnp.dtype("float64")))
    variables = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
    # Where a bias alone makes a neuron fire, no step is without effect.
    variables["params"]["block3_0"]["mlp"]["fc1_bn"]["bias"] *= 0.2
    with jax.enable_x64(True):
        apply = jax.jit(
            lambda v: model.apply(v, images, mutable=["spikes"]), compiler_options=QUICKLY
        )

    def run(schedule):
        logits, seen = apply(snn.with_schedule(variables, schedule))
        return np.asarray(logits), {n: np.asarray(s) for n, s in snn.spikes(seen).items()}

    names = list(masks.scores(variables["params"]))
    return Masked(model, variables, images.astype(np.float64), names, run)


def test_deployed_it_equals_the_masked_model(masked, x64):
    for schedule in schedules(masked.names, 3, 2):
        assert_deployed_equals_masked(masked, schedule)


def test_merged_it_equals_the_masked_model_and_reads_spikes_alone(masked, x64):
    for schedule in schedules(masked.names, 3, 2, seed=1):
        assert_deployed_equals_masked(masked, schedule, merge=True)
    deployed = snn.deploy(masked.model, masked.variables, merge=True)
    kernels = {n: w.shape for n, w in deployed.weights.items() if n.endswith("/kernel")}
    assert kernels["block3_0/attn/q_conv_0/body_0/kernel"] == (3, 3, 8, 8)
    assert kernels["ConvBlock1_2_0/Conv/dwconv/kernel"] == (7, 7, 8, 4)
    assert not any("body_2" in name or "pwconv2" in name for name in kernels)
    spiking = len(masked.names)
    # One map behind each neuron, and that of the image. In each of the two blocks three neurons are
    # read by the product alone, and one by two more maps.
    assert len(kernels) == spiking + 1 - 2


def test_constants_flow_through_silent_layers(masked, x64):
    # Nothing but biases, also of chains, which pad with the constant of their normalisation.
    silent = snn.TimeStepSchedule(
        {name: [0, 1, 0] if "mlp" in name else [0, 0, 0] for name in masked.names}
        | {"lif": [1] * 3}
    )
    assert_deployed_equals_masked(masked, silent)


def test_the_constant_behind_a_chain_is_the_same_everywhere(masked, x64):
    weights = snn.deploy(masked.model, masked.variables).weights
    constants = [n for n in weights if n.rpartition("/")[2] in ("bias", "current", "features")]
    assert "block3_0/attn/q_conv_0/body_2_1/bias" in constants
    assert {weights[name].ndim for name in constants} == {1}


# ---------------------------------------------------------------- energy


def taps(spikes, kernel, stride):
    """How many windows see each spike of [T, B, H, W, C], summed; one window after the other."""
    n, total = kernel // 2, 0
    padded = np.pad(spikes, ((0, 0), (0, 0), (n, n), (n, n), (0, 0)))
    for row in range(0, spikes.shape[2], stride):
        for column in range(0, spikes.shape[3], stride):
            total += padded[:, :, row : row + kernel, column : column + kernel].sum()
    return total


def brute_force(spikes):
    """({layer: accumulates}, {layer: multiply-accumulates}) of an image, of a SMALL model."""
    T, B, *_ = spikes["lif"].shape
    widths = {"ConvBlock1_1_0": 2, "ConvBlock1_2_0": 4, "ConvBlock2_1_0": 4, "ConvBlock2_2_0": 4}
    sides = {"ConvBlock1_1_0": 16, "ConvBlock1_2_0": 8, "ConvBlock2_1_0": 4, "ConvBlock2_2_0": 4}
    ac = {"head": spikes["lif"].sum() * 3}  # at each step, before the mean
    mac = {"downsample1_1/encode_conv": 16 * 16 * 2 * 3 * 49}
    for name, width in widths.items():
        places = T * sides[name] ** 2
        ac[f"{name}/Conv/pwconv1"] = spikes[f"{name}/Conv/lif1"].sum() * 2 * width
        ac[f"{name}/Conv/dwconv"] = taps(spikes[f"{name}/Conv/lif2"], 7, 1)
        mac[f"{name}/Conv/pwconv2"] = places * 2 * width * width
        ac[f"{name}/conv1"] = taps(spikes[f"{name}/lif1"], 3, 1) * 4 * width
        ac[f"{name}/conv2"] = taps(spikes[f"{name}/lif2"], 3, 1) * width
    for name, stride, width in (("1_2", 2, 4), ("2", 2, 4), ("3", 2, 8), ("4", 1, 8)):
        layer = f"downsample{name}"
        ac[f"{layer}/encode_conv"] = taps(spikes[f"{layer}/encode_lif"], 3, stride) * width
    for block in ("block3_0", "block4_0"):
        emitted = {n: spikes[f"{block}/attn/{n}_lif"] for n in ("head", "q", "k", "v", "attn")}
        for chain, read in (("q", "head"), ("k", "head"), ("v", "head"), ("proj", "attn")):
            layer = f"{block}/attn/{chain}_conv_0"
            ac[f"{layer}/body_0"] = emitted[read].sum() * 8
            mac[f"{layer}/body_2_0"] = T * 2 * 2 * 8 * 9  # real values, padding included
            mac[f"{layer}/body_2_1"] = T * 2 * 2 * 8 * 8
        # (q kᵀ) v: not more tokens than channels of a head, 4
        q, k, v = (emitted[n].sum((2, 3, 4)) for n in "qkv")
        ac[f"{block}/attn/product"] = (np.minimum(q, k) + v).sum() * 4
        ac[f"{block}/mlp/fc1_conv"] = spikes[f"{block}/mlp/fc1_lif"].sum() * 32
        ac[f"{block}/mlp/fc2_conv"] = spikes[f"{block}/mlp/fc2_lif"].sum() * 8
    return {name: count / B for name, count in ac.items()}, mac


def test_energy_is_that_of_a_count_one_by_one(small):
    model, variables, images = small
    report = snn.energy_report(model, variables, images)
    apply = jax.jit(lambda v, x: model.apply(v, x, mutable=["spikes"]), compiler_options=QUICKLY)
    spikes = snn.spikes(apply(variables, images)[1])
    ac, mac = brute_force({n: np.asarray(s) for n, s in spikes.items()})
    found = {n: layer.accumulates.sum() for n, layer in report.layers.items() if n not in mac}
    assert found == pytest.approx(ac)
    assert {n: report.layers[n].macs for n in report.not_spiking} == mac
    assert report.microjoule == pytest.approx(
        (0.9 * sum(ac.values()) + 4.6 * sum(mac.values())) * 1e-6
    )
