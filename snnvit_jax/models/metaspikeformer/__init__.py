"""Meta-SpikeFormer (Yao et al., ICLR 2024): convolutions, attention, a stream of currents."""

from snnvit_jax.models.metaspikeformer.config import MetaSpikeformerConfig
from snnvit_jax.models.metaspikeformer.family import FAMILY
from snnvit_jax.models.metaspikeformer.model import MetaSpikeformer

__all__ = ["FAMILY", "MetaSpikeformer", "MetaSpikeformerConfig"]
