"""Spikingformer (Zhou et al., 2023): neurons before the linear maps, a stream of currents."""

from snnvit_jax.models.spikingformer.family import FAMILY
from snnvit_jax.models.spikingformer.model import Spikingformer, SpikingformerConfig

__all__ = ["FAMILY", "Spikingformer", "SpikingformerConfig"]
