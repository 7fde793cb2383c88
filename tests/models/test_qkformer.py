"""QKFormer: the published numbers, sizes, refusals and energy."""

import dataclasses

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
from flax import traverse_util
from quickly import QUICKLY, quickly
from test_convert import run_train

import snnvit_jax as snn
from snnvit_jax.time_steps.masks import SCORE

FILE = "qkformer_fixed_small"
SMALL = {"embed_dim": 32, "num_heads": 2, "depth": 3, "mlp_ratio": 2.0, "image_size": 8}


@pytest.fixture(scope="module")
def golden():
    return golden_files.read(FILE)


# ---------------------------------------------------------------- the published numbers


def test_inference_is_the_published_one(golden):
    spikes = parity.assert_published_inference(golden)
    assert all(0 < emitted.mean() < 1 for emitted in spikes.values())


def test_a_training_step_is_the_published_one(golden):
    parity.assert_published_step(golden, run_train(golden, "float32"), tolerance=1e-4, zero=1e-5)


@pytest.mark.slow
def test_a_training_step_in_float64_agrees_more_closely(golden, x64):
    parity.assert_published_step(golden, run_train(golden, "float64"), tolerance=1e-6, zero=1e-9)


def test_an_image_does_not_depend_on_those_beside_it(golden):
    # In the authors' code the membrane potential of a layer leaks from image to image.
    model = golden.model()
    variables = snn.convert.from_torch(model, golden.weights)
    apply = jax.jit(model.apply, compiler_options=QUICKLY)
    order = np.array([2, 0, 3, 1])
    logits = apply(variables, golden.images)
    permuted = apply(variables, golden.images[order])
    np.testing.assert_allclose(permuted, np.asarray(logits)[order], 0, 1e-5)


# ---------------------------------------------------------------- conversion


def test_conversion_loses_nothing(golden):
    assert golden.unused == []
    parity.assert_nothing_lost(golden)


def test_whatever_is_missing_extra_or_of_another_shape_is_named(golden):
    beyond = [n.replace("stage3.1.", "stage3.2.") for n in golden.weights if "stage3.1." in n]
    beyond += ["stage1.0.norm1.weight", "stage2.1.tssa.q_conv.weight"]
    parity.assert_misfits_are_named(golden, golden.weights, beyond)


def test_what_published_weights_lose_without_the_leak_is_said(golden, monkeypatch):
    note = snn.models.FAMILIES["qkformer"].note
    for name, size in SIZES.items():
        model = snn.create_model(name, num_classes=size[3])
        told = note(model)
        for figure in ("78.73 % of 10-384 become 74.20 %", "84.25 % of 10-768 become 78.70 %"):
            assert (figure in told) == name.endswith("imagenet")
    # Other sizes are nobody's published weights.
    assert note(snn.create_model("qkformer_10_384_imagenet", embed_dim=96)) == ""
    said = dataclasses.replace(snn.models.FAMILIES["qkformer"], note=lambda model: "of old, a leak")
    monkeypatch.setitem(snn.models.FAMILIES, "qkformer", said)
    with pytest.warns(UserWarning, match="of old, a leak"):
        snn.convert.from_torch(golden.model(), golden.weights)


# ---------------------------------------------------------------- sizes


def count(dim, blocks, stem, classes):
    """Parameters by their formula: kernels, biases of projections and MLPs, normalisations."""
    total = stem
    for share, number, products in zip((4, 2, 1), blocks, (2, 2, 3), strict=True):
        width = dim // share
        maps = (products + 1) * width**2 + width + 8 * width**2 + 5 * width
        total += number * (maps + 2 * width * (products + 1 + 5))
        if share < 4:  # two 3x3 convolutions and a side path
            total += 9 * width**2 // 2 + 9 * width**2 + width**2 // 2 + 3 * 2 * width
    return total + dim * classes + classes


def cifar_stem(first):
    return 27 * first + 2 * first + 9 * 2 * first**2 + 2 * first**2 + 2 * 2 * 2 * first


def imagenet_stem(first):
    last = 2 * first
    return 27 * first + 2 * first + (10 * first + 9 * last) * last + 3 * 2 * last


# name -> (embed_dim, heads, blocks, classes, published number of parameters, or of millions)
SIZES = {
    "qkformer_4_384": (384, 8, (1, 1, 2), 10, 6_706_234),
    "qkformer_10_384_imagenet": (384, 6, (1, 2, 7), 1000, "16.47"),
    "qkformer_10_512_imagenet": (512, 8, (1, 2, 7), 1000, "29.08"),
    "qkformer_10_768_imagenet": (768, 12, (1, 2, 7), 1000, "64.96"),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_published_size_has_its_parameters_and_layers(name):
    dim, heads, blocks, classes, published = SIZES[name]
    model = snn.create_model(name, num_classes=classes)
    config = model.config
    side = 32 if classes == 10 else 224
    assert (config.embed_dim, config.num_heads, config.blocks) == (dim, heads, blocks)
    assert (config.image_size, config.mlp_ratio) == ((side, side), 4)
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    params = traverse_util.flatten_dict(variables["params"], sep="/")
    found = sum(leaf.size for path, leaf in params.items() if SCORE not in path)
    stem = cifar_stem if classes == 10 else imagenet_stem
    assert found == count(dim, blocks, stem(dim // 8), classes)
    assert published in (found, f"{found / 1e6:.2f}")
    names = snn.layer_names(model)
    assert len(names) == 6 * (blocks[0] + blocks[1]) + 7 * blocks[2] + (9 if classes == 10 else 10)
    assert {path.removesuffix(f"/{SCORE}") for path in params if SCORE in path} == set(names)


def test_every_published_size_is_here():
    names = snn.models.FAMILIES["qkformer"].sizes
    assert list(SIZES) == [name for name in names if not name.endswith("_dvs")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embed_dim": (96, 192, 384)}, r"embed_dim=\(96, 192, 384\) must be a whole number"),
        ({"embed_dim": 36}, "embed_dim=36 must be divisible by 8"),
        ({"num_heads": 5}, "a quarter of it by num_heads=5"),
        ({"depth": 2}, "depth=2 must be at least 3"),
        ({"image_size": 30}, r"image_size=\(30, 30\) .* patch stride 4"),
        ({"mlp_ratio": 0.001}, "mlp_ratio=0.001"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
        ({"remat": "all"}, "remat='all'"),
        ({"form": None, "pool": (True,) * 4}, "unknown model settings"),
    ],
)
def test_what_does_not_fit_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        snn.create_model("qkformer_4_384", **settings)


# ---------------------------------------------------------------- energy


def small(lively):
    model = snn.create_model("qkformer_4_384", 3, **SMALL)
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)
    return model, lively(model), images


def taps(x, kernel, stride):
    """How many windows see each unit of [T, B, H, W, C], summed; one window after the other."""
    n, total = kernel // 2, 0
    padded = np.pad(x, ((0, 0), (0, 0), (n, n), (n, n), (0, 0)))
    for row in range(0, x.shape[2], stride):
        for column in range(0, x.shape[3], stride):
            total += padded[:, :, row : row + kernel, column : column + kernel].sum()
    return total


def counted_block(block, x, spikes, attention):
    """({layer: accumulates}, the stream behind it) of a block that reads integers x."""
    emitted = {n.rpartition("/")[2][:-4]: s for n, s in spikes.items() if n.startswith(block)}
    width, hidden = x.shape[-1], emitted["mlp1"].shape[-1]
    ac = {f"{attention}/q_conv": x.sum() * width, f"{attention}/k_conv": x.sum() * width}
    if attention == "tssa":
        heads = emitted["attn"].shape[-1]
        passed = np.repeat(emitted["attn"], width // heads, -1) * emitted["k"]
        ac |= {"tssa/head_sum": emitted["q"].sum(), "tssa/gate": passed.sum()}
        ac["tssa/proj_conv"] = passed.sum() * width
    else:
        ac["ssa/v_conv"] = x.sum() * width
        q, k, v = (emitted[n].sum((2, 3)) for n in "qkv")
        # 4 tokens of heads of 16 channels: (q kᵀ) v
        ac["ssa/product"] = (np.minimum(q, k) + v).sum() * x.shape[2]
        ac["ssa/proj_conv"] = emitted["attn"].sum() * width
    x = x + emitted["proj"]
    ac["mlp/mlp1_conv"] = x.sum() * hidden
    ac["mlp/mlp2_conv"] = emitted["mlp1"].sum() * width
    return {f"{block}/{name}": value for name, value in ac.items()}, x + emitted["mlp2"]


def brute_force(spikes):
    """{layer: accumulates} of a batch, of a `small` model."""
    side = spikes["patch_embed1/proj_lif"]
    ac = {
        "patch_embed1/proj1_conv": taps(side, 3, 1) * 8,
        "patch_embed1/proj_res_conv": side.sum() * 8,
    }
    x = spikes["patch_embed1/proj1_lif"] + spikes["patch_embed1/proj_res_lif"]
    for stage, width in enumerate((8, 16, 32), 1):
        if stage > 1:
            name = f"patch_embed{stage}"
            ac[f"{name}/proj3_conv"] = taps(x, 3, 1) * width
            ac[f"{name}/proj4_conv"] = taps(spikes[f"{name}/proj3_lif"], 3, 1) * width
            ac[f"{name}/proj_res_conv"] = taps(x, 1, 2) * width
            x = spikes[f"{name}/proj4_lif"] + spikes[f"{name}/proj_res_lif"]
        images = x.shape
        tokens = x.reshape(*images[:2], -1, width)
        attention = "ssa" if stage == 3 else "tssa"
        of_block, x = counted_block(f"stage{stage}_0", tokens, spikes, attention)
        ac |= of_block
        x = x.reshape(images)
    return ac


def quieter(variables):
    """Variables without layers that fire always: the biases of normalisations are lower."""
    flat = traverse_util.flatten_dict(variables)
    for path in flat:
        if path[-2].endswith("_bn") and path[-1] == "bias":
            flat[path] = flat[path] - 1.0
    return traverse_util.unflatten_dict(flat)


def test_energy_is_that_of_a_count_one_by_one(lively):
    model, variables, images = small(lively)
    variables = quieter(variables)
    report = snn.energy_report(model, variables, images)
    _, seen = quickly(lambda v: model.apply(v, images, mutable=["spikes"]), variables)
    spikes = {name: np.asarray(s, np.int64) for name, s in snn.spikes(seen).items()}
    assert {name for name, s in spikes.items() if not 0 < s.mean() < 1} == set()
    expected = {name: n / 3 for name, n in brute_force(spikes).items()}
    assert report.not_spiking == ["patch_embed1/proj_conv", "head"]
    real = {"patch_embed1/proj_conv": 64 * 27 * 4, "head": 32 * 3}
    found = {n: layer.accumulates.sum() for n, layer in report.layers.items() if n not in real}
    assert found == pytest.approx(expected)
    assert {name: report.layers[name].macs for name in real} == real
    assert report.microjoule == pytest.approx(
        (0.9 * sum(expected.values()) + 4.6 * sum(real.values())) * 1e-6
    )
    # A sum of spikes is an integer: what reads a stream multiplies under the other convention.
    assert report.under(integers="multiply").microjoule > report.microjoule
