"""Spike-driven Transformer (Yao et al., NeurIPS 2023): attention by masking and adding alone."""

from snnvit_jax.models.sdt.family import FAMILY
from snnvit_jax.models.sdt.model import SpikeDrivenConfig, SpikeDrivenTransformer

__all__ = ["FAMILY", "SpikeDrivenConfig", "SpikeDrivenTransformer"]
