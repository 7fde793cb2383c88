import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import snnvit_jax as snn
from snnvit_jax import energy, recording


def brute_force_conv(spikes):
    """Accumulates of a 3x3 convolution to one channel: every tap of every output, one by one."""
    T, B, H, W, C = spikes.shape
    count = np.zeros(T, np.int64)
    for t, b, row, column, c in np.ndindex(T, B, H, W, C):
        for i, j in np.ndindex(3, 3):
            y, x = row + i - 1, column + j - 1
            if 0 <= y < H and 0 <= x < W:
                count[t] += int(spikes[t, b, y, x, c])
    return count


@pytest.fixture(scope="module")
def report(tiny):
    return energy.energy_report(tiny.model, tiny.variables, tiny.images)


@pytest.fixture(scope="module")
def spikes(tiny):
    seen = tiny.model.apply(tiny.variables, tiny.images, mutable=["spikes"])[1]
    return {name: np.asarray(s) for name, s in recording.spikes(seen).items()}


def test_convolutions_are_counted_tap_by_tap(report, spikes):
    expected = 8 * brute_force_conv(spikes["patch_embed/proj_lif"]) / 3
    np.testing.assert_allclose(report.layers["patch_embed/proj_conv1"].accumulates, expected)


def test_linear_layers_cost_their_width_for_each_spike(report, spikes):
    fired = spikes["block_0/mlp/fc1_lif"].reshape(4, -1).sum(1)
    expected = 32 * fired / 3
    np.testing.assert_allclose(report.layers["block_0/mlp/fc2_linear"].accumulates, expected)


def test_attention_costs_a_row_for_each_spike(report, spikes):
    q, k, v = (spikes[f"block_0/attn/{x}_lif"].sum((2, 3)) for x in "qkv")  # T B
    expected = 16 * (q + np.minimum(k, v)).sum(1) / 3
    np.testing.assert_allclose(report.layers["block_0/attn/product"].accumulates, expected)


def test_the_image_costs_multiply_accumulates_once(report):
    embedding = report.layers["patch_embed/proj_conv"]
    assert embedding.macs == 9 * 3 * 4 * 16 * 16
    assert embedding.accumulates.sum() == 0


def test_everything_but_image_and_head_is_accumulate_only(report):
    assert report.not_spiking == ["patch_embed/proj_conv", "head"]


def test_energy_follows_from_the_counts(report):
    expected = 4.6e-6 * report.macs + 0.9e-6 * report.accumulates
    np.testing.assert_allclose(report.microjoule, expected)
    assert report.macs == 9 * 3 * 4 * 16 * 16 + 32 * 3


def test_energies_can_be_chosen(tiny, report):
    other = energy.energy_report(tiny.model, tiny.variables, tiny.images, mac=1.0, ac=2.0)
    np.testing.assert_allclose(other.microjoule, 1e-6 * (report.macs + 2 * report.accumulates))


def test_a_hand_counted_linear_layer():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):  # B T C
            return nn.Dense(5, name="out")(x)

    x = jnp.array([[[1.0, 0, 1], [0, 0, 0]], [[1, 1, 1], [0, 1, 0]]])  # 2 images, 2 steps
    model = Model()
    variables = model.init(jax.random.key(0), x)
    _, (units, whole) = energy.observe(model, variables, x)
    np.testing.assert_array_equal(units["out"], [[2, 3], [0, 1]])
    assert bool(whole["out"])
    _, (_, whole) = energy.observe(model, variables, x + 0.25)
    assert not bool(whole["out"])


def test_published_operation_count_of_the_first_convolution():
    # 8-768 on ImageNet: the authors' counter reports 520,224,768 for four time steps.
    model = snn.create_model("spikformer_8_768_imagenet", num_classes=1000)
    shapes = energy.layer_shapes(model)
    assert 4 * shapes["patch_embed/proj_conv"].macs == 520_224_768
    assert shapes["head"].macs == 768_000


def test_published_attention_count():
    model = snn.create_model("spikformer_4_384")
    shape = energy.layer_shapes(model)["block_0/attn/product"]
    tokens, heads, head_dim = 64, 12, 32
    # T h N d^2 (min(r_k, r_v) + r_q) at rates of 1: two products of h N d^2 for each step.
    assert shape.macs == 2 * heads * tokens * head_dim**2
    assert shape.fan_out == head_dim
