"""What a time step costs, against formulas written down for Spikformer."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

import snnvit_jax as snn
from snnvit_jax import energy, neurons


def published_costs(side, channels, hidden, heads, depth, pool):
    """{layer: accumulates for its spikes + its neurons} of a Spikformer all of whose neurons fire.

    A 3x3 window of a side of n pixels meets them 3n - 2 times, the padding excepted.
    """
    costs, features = {}, [channels // 8, channels // 4, channels // 2, channels]
    sides = [side]
    for pooled in pool:
        sides.append(sides[-1] // 2 if pooled else sides[-1])
    N, D = sides[-1] ** 2, channels
    block = N * D * (3 * D + hidden)  # what a unit in every channel of the residual stream costs
    for i in range(4):
        after = (3 * sides[i + 1] - 2) ** 2 * features[i] * features[min(i + 1, 3)]
        residual = depth * block if i == 3 else 0
        costs[f"patch_embed/proj_lif{i or ''}"] = after + residual + sides[i] ** 2 * features[i]
    costs["patch_embed/rpe_lif"] = depth * block + N * D
    for i in range(depth):
        later = (depth - 1 - i) * block
        for name in "qkv":
            costs[f"block_{i}/attn/{name}_lif"] = N * D * min(N, D // heads) + N * D
        costs[f"block_{i}/attn/attn_lif"] = N * D * D + N * D
        costs[f"block_{i}/attn/proj_lif"] = N * D * hidden + later + N * D
        costs[f"block_{i}/mlp/fc1_lif"] = N * hidden * D + N * hidden
        costs[f"block_{i}/mlp/fc2_lif"] = later + N * D
    return costs


CIFAR = {"embed_dim": 32, "num_heads": 2, "depth": 2}
SIZES = {
    "cifar": ("spikformer_4_384", 16, CIFAR),
    "wide heads": ("spikformer_4_384", 8, CIFAR),
    "narrow heads": ("spikformer_4_384", 32, CIFAR | {"num_heads": 8, "mlp_ratio": 2.0}),
    "imagenet": ("spikformer_8_384_imagenet", 32, CIFAR | {"depth": 1}),
    "three pools": ("spikformer_4_384", 16, CIFAR | {"pool": (True, True, False, True)}),
}


@pytest.mark.parametrize("case", SIZES)
def test_costs_of_a_spikformer_are_those_of_its_formulas(case):
    name, side, sizes = SIZES[case]
    model = snn.create_model(name, 5, side, time_steps=2, **sizes)
    config = model.config
    expected = published_costs(
        *(side, config.embed_dim, config.hidden_dim, config.num_heads, config.depth, config.pool)
    )
    found = energy.step_costs(model, (side, side, 3))
    assert found == expected
    assert list(found) == snn.layer_names(model)


@pytest.mark.parametrize("kind", ["plif", "relu"])
def test_costs_are_those_of_the_architecture(kind):
    def costs(**options):
        model = snn.create_model("spikformer_4_384", 5, 8, **CIFAR, **options)
        return energy.step_costs(model, (8, 8, 3))

    assert costs(time_steps=3, neuron={"kind": kind}) == costs(time_steps=1)


def test_a_product_that_is_not_counted_is_refused():
    class Hidden(nn.Module):
        @nn.compact
        def __call__(self, images):
            x = neurons.LIF(name="lif")(images[:, None].reshape(len(images), 1, -1))
            return jnp.einsum("btc,dc->btd", x, np.ones((2, x.shape[-1]), np.float32))

    with pytest.raises(ValueError, match="computed but not counted"):
        energy.step_costs(Hidden(), (4, 4, 3))
