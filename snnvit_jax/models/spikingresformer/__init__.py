"""SpikingResformer (Shi et al., CVPR 2024): a residual network with dual spike self-attention."""

from snnvit_jax.models.spikingresformer.config import SpikingResformerConfig
from snnvit_jax.models.spikingresformer.family import FAMILY
from snnvit_jax.models.spikingresformer.model import SpikingResformer

__all__ = ["FAMILY", "SpikingResformer", "SpikingResformerConfig"]
