"""What spiking transformers are made of, except the neuron: layers of signals.

Imports `common`, `signals` and `xla`.
"""

from snnvit_jax.layers.attention import (
    AttentionMap,
    AttentionValues,
    DilateHeads,
    Gate,
    Product,
    SpikingAttention,
    TokenSum,
    spiking_attention,
)
from snnvit_jax.layers.drop_path import drop_path
from snnvit_jax.layers.head import Head
from snnvit_jax.layers.heads import Channels, HeadSum, SplitHeads, as_heads, merge_heads
from snnvit_jax.layers.linear import Conv, Convolution, Linear, MatrixProduct, uniform_fan_in
from snnvit_jax.layers.normalisation import (
    EPSILON,
    MOMENTUM,
    BatchNorm,
    batch_statistics,
    normalize,
)
from snnvit_jax.layers.pooling import Dilate, max_pool, mean_over_space
from snnvit_jax.layers.scale import RateScale, Scale, running_rate, update_firing_rate

__all__ = [
    "EPSILON",
    "MOMENTUM",
    "AttentionMap",
    "AttentionValues",
    "BatchNorm",
    "Channels",
    "Conv",
    "Convolution",
    "Dilate",
    "DilateHeads",
    "Gate",
    "Head",
    "HeadSum",
    "Linear",
    "MatrixProduct",
    "Product",
    "RateScale",
    "Scale",
    "SpikingAttention",
    "SplitHeads",
    "TokenSum",
    "as_heads",
    "batch_statistics",
    "drop_path",
    "max_pool",
    "mean_over_space",
    "merge_heads",
    "normalize",
    "running_rate",
    "spiking_attention",
    "uniform_fan_in",
    "update_firing_rate",
]
