"""The energy report of a small model against its recorded spikes, and of published ones."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import snnvit_jax as snn
from snnvit_jax import energy
from snnvit_jax.energy import observation
from snnvit_jax.neurons import LIF, create_neuron, recording

# What sees integers in a Spikformer of one block: the residual stream.
RESIDUAL = [f"block_0/{name}_linear" for name in ("attn/q", "attn/k", "attn/v", "mlp/fc1")]
REAL = ["patch_embed/proj_conv", "head"]
FIRST_CONVOLUTION = 9 * 3 * 4 * 16 * 16
HEAD = 32 * 3


def brute_force_conv(spikes):
    """Accumulates of a 3x3 convolution to one channel: every tap of every output, one by one."""
    T, B, H, W, _ = spikes.shape
    count = np.zeros(T, np.int64)
    for t, b, row, column in np.ndindex(T, B, H, W):
        for i, j in np.ndindex(3, 3):
            y, x = row + i - 1, column + j - 1
            if 0 <= y < H and 0 <= x < W:
                count[t] += int(spikes[t, b, y, x].sum())
    return count


@pytest.fixture(scope="module")
def report(tiny_energy):
    return tiny_energy


@pytest.fixture(scope="module")
def spikes(tiny):
    apply = jax.jit(lambda v, x: tiny.model.apply(v, x, mutable=["spikes"])[1])
    seen = recording.spikes(apply(tiny.variables, tiny.images))
    return {name: np.asarray(s) for name, s in seen.items()}


# ---------------------------------------------------------------- counts


def test_convolutions_are_counted_tap_by_tap(report, spikes):
    expected = 8 * brute_force_conv(spikes["patch_embed/proj_lif"]) / 3
    np.testing.assert_array_equal(report.layers["patch_embed/proj_conv1"].accumulates, expected)


def test_linear_layers_cost_their_width_for_each_spike(report, spikes):
    fired = spikes["block_0/mlp/fc1_lif"].reshape(4, -1).sum(1)
    expected = 32 * fired / 3
    np.testing.assert_allclose(report.layers["block_0/mlp/fc2_linear"].accumulates, expected)


def test_an_integer_costs_as_many_accumulates(report, spikes):
    pooled = spikes["patch_embed/rpe_lif"].reshape(4, -1).sum(1)
    fed = report.layers["block_0/attn/q_linear"]
    assert (fed.accumulates * 3 >= 32 * pooled).all()  # and the pooled spikes besides
    assert fed.operands["input"].rate.max() > 1
    np.testing.assert_allclose(fed.accumulates, fed.operands["input"].rate * 16 * 32 * 32)


def test_attention_costs_a_row_for_each_spike(report, spikes):
    q, k, v = (spikes[f"block_0/attn/{x}_lif"].sum((2, 3)) for x in "qkv")  # T B
    expected = 16 * (np.minimum(q, k) + v).sum(1) / 3  # 16 tokens of 16 channels: (q kᵀ) v
    np.testing.assert_allclose(report.layers["block_0/attn/product"].accumulates, expected)


def test_spikes_and_rates_are_the_recorded_ones(report, spikes):
    assert list(report.neurons) == list(spikes)
    for name, layer in report.neurons.items():
        by_step = spikes[name].reshape(4, -1)
        np.testing.assert_array_equal(layer.spikes * 3, by_step.sum(1))
        np.testing.assert_allclose(layer.rates, by_step.mean(1), rtol=1e-6)
        assert layer.shape.neurons == by_step.shape[1] / 3


def test_the_image_costs_multiply_accumulates_once_or_for_each_step(report):
    assert report.layers["patch_embed/proj_conv"].macs == FIRST_CONVOLUTION
    assert report.macs == FIRST_CONVOLUTION + HEAD
    assert report.under(repeat_embedding=True).macs == 4 * FIRST_CONVOLUTION + HEAD


# ---------------------------------------------------------------- conventions


def test_energy_follows_from_the_counts(report):
    for changes in ({}, {"integers": "multiply"}, {"repeat_embedding": True}):
        other = report.under(**changes)
        expected = 4.6e-6 * other.macs + 0.9e-6 * other.accumulates
        np.testing.assert_allclose(other.microjoule, expected)


def test_integers_may_cost_multiply_accumulates(report):
    other = report.under(integers="multiply")
    for name, layer in other.layers.items():
        before = report.layers[name]
        if name in RESIDUAL:
            assert layer.macs == 4 * before.shape.macs
            assert layer.accumulates.sum() == 0 < before.accumulates.sum()
        else:
            np.testing.assert_array_equal(layer.accumulates, before.accumulates)
            assert layer.macs == before.macs
    assert other.microjoule > report.microjoule


def test_energies_can_be_chosen(tiny, report):
    other = snn.energy_report(tiny.model, tiny.variables, tiny.images, mac=1.0, ac=2.0)
    np.testing.assert_allclose(other.microjoule, 1e-6 * (report.macs + 2 * report.accumulates))
    with_membrane = report.under(membrane=0.5, count_membrane=True)
    expected = report.microjoule + 0.5e-6 * report.membrane_updates
    np.testing.assert_allclose(with_membrane.microjoule, expected)


def test_a_plain_transformer_multiplies_everything_once(report):
    tokens, dim = 16, 32
    linear = tokens * dim * (4 * dim + 2 * 4 * dim)
    convolutions = 9 * (16**2 * (3 * 4 + 4 * 8 + 8 * 16) + 8**2 * 16 * 32 + tokens * dim**2)
    assert report.plain_macs == convolutions + linear + 2 * tokens**2 * dim + HEAD
    np.testing.assert_allclose(report.plain_microjoule, 4.6e-6 * report.plain_macs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"integers": "count"}, "integers='count' must be one of accumulate, multiply"),
        ({"mac": -1.0}, "mac=-1.0"),
        ({"ac": float("nan")}, "ac=nan"),
        ({"membrane": float("inf")}, "membrane=inf"),
    ],
)
def test_bad_conventions_are_named(tiny, settings, message):
    with pytest.raises(ValueError, match=message):
        snn.energy_report(tiny.model, tiny.variables, tiny.images, **settings)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_that_is_not_finite_is_named(tiny, value):
    images = np.array(tiny.images)
    images[1, 2, 3, 0] = value  # spikes would hide it
    with pytest.raises(ValueError, match=r"1 values that are not finite, .* \(1, 2, 3, 0\)"):
        snn.energy_report(tiny.model, tiny.variables, images)


@pytest.mark.parametrize("shape", [(0, 16, 16, 3), ()])
def test_images_that_cannot_be_counted_are_named(tiny, shape):
    with pytest.raises(ValueError, match=r"B >= 1, got \("):
        snn.energy_report(tiny.model, tiny.variables, np.zeros(shape, np.float32))


# ---------------------------------------------------------------- membrane and masks


@pytest.fixture(scope="module")
def masked(tiny, report):
    """A schedule with silent first, middle, last and all steps, and the report under it."""
    masks = {name: np.ones(4, bool) for name in report.neurons}
    masks["patch_embed/proj_lif"] = np.array([0, 1, 0, 1])
    masks["block_0/attn/q_lif"] = np.array([1, 1, 0, 0])
    masks["block_0/mlp/fc1_lif"] = np.zeros(4)
    variables = snn.with_schedule(tiny.variables, snn.TimeStepSchedule(masks))
    return masks, snn.energy_report(tiny.model, variables, tiny.images)


def test_a_silent_step_costs_no_accumulates(masked):
    _, report = masked
    first = report.layers["patch_embed/proj_conv1"].accumulates
    np.testing.assert_array_equal(first > 0, [0, 1, 0, 1])
    assert report.layers["block_0/mlp/fc2_linear"].accumulates.sum() == 0
    np.testing.assert_array_equal(report.neurons["block_0/attn/q_lif"].spikes > 0, [1, 1, 0, 0])


def test_what_arrives_after_the_last_active_step_is_not_counted_but_shown(tiny, masked):
    masks, report = masked
    deployed = snn.deploy(tiny.model, tiny.variables, snn.TimeStepSchedule(masks))
    product, last = deployed.steps, report.layers["block_0/mlp/fc1_linear"]
    assert last.accumulates.sum() == 0 < last.arriving.sum()
    queries = report.layers["block_0/attn/q_linear"]
    np.testing.assert_array_equal(queries.accumulates > 0, [1, 1, 0, 0])
    assert (queries.arriving > 0).all()
    assert max(product["block_0/attn/q_lif"]) == 1
    assert report.accumulates < report.arriving
    assert f"(of {report.arriving:,.1f})" in report.table().splitlines()[-1]
    content = json.loads(report.to_json())
    assert content["totals"]["accumulate"]["arriving"] == report.arriving
    for name, layer in report.layers.items():
        assert (layer.accumulates <= layer.arriving).all()
        assert content["layers"][name]["arriving"] == layer.arriving.tolist()


def test_with_all_steps_on_everything_that_arrives_counts(report):
    assert report.accumulates == report.arriving
    assert "(of " not in report.table()


def test_layers_that_never_fire_are_named_beside_the_total(tiny, report):
    assert report.silent_layers == []
    variables = jax.tree.map(np.asarray, tiny.variables)
    norm = variables["params"]["block_0"]["mlp"]["fc1_bn"]
    norm = {"scale": 0 * norm["scale"], "bias": 0 * norm["bias"]}
    mlp = variables["params"]["block_0"]["mlp"] | {"fc1_bn": norm}
    block = variables["params"]["block_0"] | {"mlp": mlp}
    variables = variables | {"params": variables["params"] | {"block_0": block}}
    found = snn.energy_report(tiny.model, variables, tiny.images)
    assert "block_0/mlp/fc1_lif" in found.silent_layers
    assert "never fire: " in found.table().splitlines()[-1]
    assert "block_0/mlp/fc1_lif" in found.table().splitlines()[-1]
    assert json.loads(found.to_json())["silent_layers"] == found.silent_layers


def test_membranes_are_updated_until_the_last_active_step(masked, report):
    masks, after = masked
    for name, mask in masks.items():
        steps = max((t + 1 for t in range(4) if mask[t]), default=0)
        neurons = report.neurons[name].shape.neurons
        np.testing.assert_array_equal(
            after.neurons[name].updates, [neurons] * steps + [0] * (4 - steps)
        )
    full = 4 * sum(layer.shape.neurons for layer in report.neurons.values())
    assert report.membrane_updates == full
    np.testing.assert_allclose(report.membrane_microjoule, 4.6e-6 * full)


def test_a_time_step_without_input_costs_no_multiply_accumulates(tiny):
    # Only step 2 is on, in every layer: the residual stream is zero at the other three.
    only = {name: np.arange(4) == 2 for name in snn.layer_names(tiny.model)}
    variables = snn.with_schedule(tiny.variables, snn.TimeStepSchedule(only))
    report = snn.energy_report(tiny.model, variables, tiny.images, integers="multiply")
    for name in RESIDUAL:
        assert report.layers[name].macs == report.layers[name].shape.macs


@pytest.mark.parametrize(("kind", "picojoule"), [("lif", 4.6), ("plif", 4.6), ("if", 0.9)])
def test_a_leak_costs_a_multiplication(kind, picojoule):
    update = create_neuron(kind).update(4)
    assert energy.Accounting().membrane_update(update) == picojoule
    assert energy.Accounting(membrane=0.1).membrane_update(update) == 0.1


def test_a_leaky_neuron_without_leak_costs_an_addition():
    update = create_neuron("lif", tau=None).update(4)
    assert energy.Accounting().membrane_update(update) == 0.9


# ---------------------------------------------------------------- accumulate-only


def test_everything_but_image_and_head_is_accumulate_only(report):
    assert report.not_spiking == REAL
    kinds = {name.split(":")[0]: x.kind for name, x in report.not_binary.items()}
    assert kinds == dict.fromkeys(REAL, "real") | dict.fromkeys(RESIDUAL, "integers")


class Leaky(nn.Module):
    """Two spiking layers; `fault` is added to what the second linear layer is fed."""

    fault: float

    @nn.compact
    def __call__(self, x):  # B T C
        s = LIF(name="lif")(nn.Dense(6, name="first")(x))
        s = s.at[0, 1, 0].add(self.fault)
        return nn.Dense(2, name="second")(LIF(name="lif2")(nn.Dense(4, name="fed")(s)))


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (0.0, "spikes"),
        (0.5, "real"),
        (-1.0, "real"),
        (2.0, "integers"),
        (100.0, "integers"),
        (200.0, "real"),
    ],
)
def test_a_layer_fed_with_something_else_than_spikes_is_listed(fault, kind):
    x = jnp.full((2, 3, 5), -1.0)  # the first layer's bias of 0 leaves its neurons silent
    model = Leaky(fault)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda p: np.full(p.shape, 0.5, np.float32), shapes)
    report = snn.energy_report(model, variables, x)
    assert report.layers["fed"].kind == kind
    assert ("fed" in report.not_spiking) == (kind == "real")
    assert ("fed: input" in report.not_binary) == (kind != "spikes")
    assert (report.layers["fed"].macs > 0) == (kind == "real")


def test_one_operand_that_is_not_spikes_makes_the_attention_multiply(report):
    counts = json.loads(json.dumps(jax.tree.map(np.ndarray.tolist, report.counts)))
    counts = jax.tree.map(np.asarray, counts, is_leaf=lambda x: isinstance(x, list))
    counts["operands"]["block_0/attn/product"]["k"]["others"] = np.array([0, 1, 0, 0])
    changed = dataclasses.replace(report, counts=counts)
    assert changed.not_spiking == [REAL[0], "block_0/attn/product", REAL[1]]
    assert list(changed.not_binary)[-3] == "block_0/attn/product: k"
    layer = changed.layers["block_0/attn/product"]
    assert layer.macs == 4 * layer.shape.macs


def test_the_stream_of_a_network_that_fires_everywhere_stays_small_integers(lively):
    depth = 6
    sizes = {"image_size": 16, "time_steps": 2, "embed_dim": 16, "num_heads": 2, "depth": depth}
    model = snn.create_model("spikformer_2_384", 3, **sizes)
    variables = lively(model)
    flat = traverse_util.flatten_dict(variables)
    for path in flat:  # every current is 100, whatever arrives
        if "bn" in path[-2]:
            value = {"scale": 0.0, "bias": 100.0}.get(path[-1], 1.0)
            flat[path] = jnp.full_like(flat[path], value)
    images = np.full((1, 16, 16, 3), 0.5, np.float32)
    report = snn.energy_report(model, traverse_util.unflatten_dict(flat), images)
    assert report.not_spiking == REAL[:1]  # even the mean that the head reads is whole
    # The patch embedding emits 1 and its position 1, every branch adds 1.
    last = report.layers[f"block_{depth - 1}/mlp/fc1_linear"]
    values = 2 + 2 * (depth - 1) + 1
    assert last.kind == "integers"
    np.testing.assert_array_equal(last.accumulates, values * last.shape.macs)  # at each step
    assert observation.LARGEST_INTEGER >= 2 + 2 * 62  # deeper than any published one


# ---------------------------------------------------------------- the ANN twin


@pytest.fixture(scope="module")
def twin(lively):
    model = snn.create_model(
        *("spikformer_2_384", 3),
        image_size=16,
        time_steps=1,
        embed_dim=32,
        num_heads=2,
        depth=1,
        neuron={"kind": "relu"},
    )
    images = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
    return snn.energy_report(model, lively(model), images)


def test_the_ann_twin_multiplies_everything_and_has_no_membrane(twin, report):
    assert twin.not_spiking == list(twin.layers) == list(report.layers)
    assert twin.accumulates == twin.membrane_updates == twin.membrane_microjoule == 0
    # The same shapes, at one time step and without a softmax.
    attention = twin.layers["block_0/attn/product"].shape
    assert twin.macs - attention.macs == report.plain_macs - attention.plain_macs
    assert all(0 < layer.rates[0] < 1 for layer in twin.neurons.values())


# ---------------------------------------------------------------- what others can compute again


def test_json_is_enough_to_compute_every_figure_again(masked):
    _, report = masked
    content = json.loads(report.to_json())
    cost = content["picojoule"]
    for convention, total in content["totals"].items():
        other = report.under(integers=convention)
        accumulates = macs = repeated = 0
        for name, layer in content["layers"].items():
            multiply = layer["input"] == "real" or (
                layer["input"] == "integers" and convention == "multiply"
            )
            read = name != "block_0/mlp/fc1_linear"  # by a layer without any active step
            assert bool(layer["macs"][convention]) == (multiply and read)
            accumulates += 0 if multiply else sum(layer["accumulates"])
            macs += layer["macs"][convention]
            repeated += layer["macs"][convention] * layer["shape"]["repeats"]
        microjoule = 1e-6 * (cost["ac"] * accumulates + cost["mac"] * macs)
        np.testing.assert_allclose(total["microjoule"], microjoule)
        np.testing.assert_allclose(other.microjoule, microjoule)
        assert total["macs"] == macs
        assert total["with_repeated_embedding"]["macs"] == repeated
    updates = sum(sum(layer["updates"]) for layer in content["neurons"].values())
    assert content["membrane"]["updates"] == updates == report.membrane_updates
    plain = sum(layer["shape"]["plain_macs"] for layer in content["layers"].values())
    assert content["plain_vision_transformer"]["macs"] == plain


def test_the_table_has_a_row_for_each_layer_and_the_totals(report):
    rows = [line.strip("| ").split(" | ") for line in report.table().splitlines()]
    assert [row[0] for row in rows[2:-2]] == list(report.layers)
    assert {len(row) for row in rows if row[0] != "membrane updates"} == {6}
    np.testing.assert_allclose(float(rows[-1][-1]), 1e3 * report.microjoule, rtol=1e-3)
    nanojoule = sum(float(row[-1]) for row in rows[2:-2])
    np.testing.assert_allclose(nanojoule, 1e3 * report.microjoule, rtol=1e-3)


# ---------------------------------------------------------------- published counts, from shapes

IMAGENET, CIFAR = (224, 224, 3), (32, 32, 3)


def report_at_rate(name, num_classes, image_shape, rate):
    """A report in which every neuron of a published model fires at a rate, from shapes alone."""
    model = snn.create_model(name, num_classes=num_classes)
    multiply = model.config.input_layer, "head"
    shapes = energy.model_shapes(model, image_shape)
    units, operands = {}, {}
    for layer, shape in shapes.layers.items():
        real = layer in multiply
        per_step = {n: np.full(shape.time_steps, size) for n, size in shape.operands.items()}
        units[layer] = np.zeros(shape.time_steps)
        operands[layer] = {
            n: {"total": rate * size * (not real), "integers": 0 * size, "others": size * real}
            for n, size in per_step.items()
        }
    active = {n: np.full(4, rate * shape.neurons) for n, shape in shapes.neurons.items()}
    counts = {"units": units, "operands": operands, "active": active}
    last = dict.fromkeys(shapes.neurons, 4)
    return energy.EnergyReport(shapes, counts, last, 1, energy.Accounting())


def test_published_multiply_accumulates_of_spikingformer_8_768():
    # The authors' counter: 520,224,768 MAC for the first convolution, counted four times.
    report = report_at_rate("spikingformer_8_768_imagenet", 1000, IMAGENET, 1.0)
    first = snn.create_model("spikingformer_8_768_imagenet", 1000).config.input_layer
    repeated = report.under(repeat_embedding=True)
    assert repeated.layers[first].macs == 520_224_768 == 4 * report.layers[first].macs
    head = report.layers["head"]
    published = 0.521e9  # with the head and its 1,000 biases
    found = repeated.layers[first].macs + head.macs + head.shape.bias_adds
    np.testing.assert_allclose(found, published, rtol=1e-3)


def test_published_multiply_accumulates_of_spikformer_4_384():
    # A user's run of the authors' counter: 0.0053 GMAC, a bias counting as one.
    report = report_at_rate("spikformer_4_384", 10, CIFAR, 1.0).under(repeat_embedding=True)
    head = report.layers["head"]
    assert report.layers["patch_embed/proj_conv"].macs == 5_308_416
    assert head.macs + head.shape.bias_adds == 3_850
    assert report.macs + head.shape.bias_adds == 5_312_266


@pytest.mark.parametrize(
    ("name", "classes", "image", "tokens", "heads", "head_dim", "rate"),
    [
        ("spikformer_4_384", 10, CIFAR, 64, 12, 32, 0.25),
        ("spikformer_8_768_imagenet", 1000, IMAGENET, 196, 12, 64, 1.0),
    ],
)
def test_published_attention_formula(name, classes, image, tokens, heads, head_dim, rate):
    report = report_at_rate(name, classes, image, rate)
    layer = report.layers["block_0/attn/product"]
    expected = 4 * heads * tokens * head_dim**2 * (min(rate, rate) + rate)  # T h N d² (...)
    np.testing.assert_allclose(layer.by_rate.sum(), expected)
    assert layer.shape.fan_out == head_dim
    parts = report.counts["operands"]["block_0/attn/product"]
    units = {
        name: parts[name]["total"] * share for name, share in (("q", 1), ("k", 0.5), ("v", 0.25))
    }
    by_rate = energy.operations.accumulates_by_rate(layer.shape, units).sum()
    np.testing.assert_allclose(by_rate, expected / 2 * (1 + 0.25))  # q, and the sparser of k, v


def test_published_synaptic_operations_are_rate_times_operations():
    # Spikformer 4-384 at rate r: r T times the multiply-accumulates of all but image and head.
    rate, report = 0.2, report_at_rate("spikformer_4_384", 10, CIFAR, 0.2)
    dim, tokens = 384, 64
    convolutions = 9 * (32**2 * (48 * 96 + 96 * 192) + 16**2 * 192 * 384 + 8**2 * 384 * 384)
    block = tokens * dim**2 * (4 + 8) + 12 * tokens * 32**2 * 2
    np.testing.assert_allclose(report.accumulates_by_rate, rate * 4 * (convolutions + 4 * block))
