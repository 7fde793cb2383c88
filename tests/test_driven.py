"""The accumulates that layers drive, against formulas written down for Spikformer."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

import snnvit_jax as snn
from snnvit_jax import energy, neurons


def published(side, channels, hidden, heads, depth, pool):
    """{layer: accumulates for its spikes} of a Spikformer all of whose neurons fire.

    A 3x3 window of a side of n pixels meets them 3n - 2 times, the padding excepted.
    """
    found, features = {}, [channels // 8, channels // 4, channels // 2, channels]
    sides = [side]
    for pooled in pool:
        sides.append(sides[-1] // 2 if pooled else sides[-1])
    N, D = sides[-1] ** 2, channels
    block = N * D * (3 * D + hidden)  # of a unit in every channel of the residual stream
    for i in range(4):
        after = (3 * sides[i + 1] - 2) ** 2 * features[i] * features[min(i + 1, 3)]
        residual = depth * block if i == 3 else 0
        found[f"patch_embed/proj_lif{i or ''}"] = after + residual
    found["patch_embed/rpe_lif"] = depth * block
    for i in range(depth):
        later = (depth - 1 - i) * block
        for name in "qkv":
            found[f"block_{i}/attn/{name}_lif"] = N * D * min(N, D // heads)
        found[f"block_{i}/attn/attn_lif"] = N * D * D
        found[f"block_{i}/attn/proj_lif"] = N * D * hidden + later
        found[f"block_{i}/mlp/fc1_lif"] = N * hidden * D
        found[f"block_{i}/mlp/fc2_lif"] = later
    return found


CIFAR = {"embed_dim": 32, "num_heads": 2, "depth": 2}
SIZES = {
    "cifar": ("spikformer_4_384", 16, CIFAR),
    "wide heads": ("spikformer_4_384", 8, CIFAR),
    "narrow heads": ("spikformer_4_384", 32, CIFAR | {"num_heads": 8, "mlp_ratio": 2.0}),
    "imagenet": ("spikformer_8_384_imagenet", 32, CIFAR | {"depth": 1}),
    "three pools": ("spikformer_4_384", 16, CIFAR | {"pool": (True, True, False, True)}),
}


@pytest.mark.parametrize("case", SIZES)
def test_a_spikformer_drives_what_its_formulas_say(case):
    name, side, sizes = SIZES[case]
    model = snn.create_model(name, 5, side, time_steps=2, **sizes)
    config = model.config
    expected = published(
        *(side, config.embed_dim, config.hidden_dim, config.num_heads, config.depth, config.pool)
    )
    found = energy.driven(model, (side, side, 3))
    assert {name: layer.accumulates for name, layer in found.items()} == expected
    assert list(found) == snn.layer_names(model)
    assert all(layer.time_steps == 2 for layer in found.values())
    tokens = (side // config.patch_stride) ** 2  # what the last stage passes on, after pooling
    assert found["patch_embed/proj_lif3"].values == tokens * config.embed_dim
    assert found["block_0/mlp/fc1_lif"].values == tokens * config.hidden_dim


@pytest.mark.parametrize("kind", ["plif", "relu"])
def test_neurons_and_time_steps_change_nothing(kind):
    def driven(**options):
        model = snn.create_model("spikformer_4_384", 5, 8, **CIFAR, **options)
        return [layer.accumulates for layer in energy.driven(model, (8, 8, 3)).values()]

    assert driven(time_steps=3, neuron={"kind": kind}) == driven(time_steps=1)


def test_a_product_that_is_not_counted_is_refused():
    class Hidden(nn.Module):
        @nn.compact
        def __call__(self, images):
            x = neurons.LIF(name="lif")(images[:, None].reshape(len(images), 1, -1))
            return jnp.einsum("btc,dc->btd", x, np.ones((2, x.shape[-1]), np.float32))

    with pytest.raises(ValueError, match="computed but not counted"):
        energy.driven(Hidden(), (4, 4, 3))
