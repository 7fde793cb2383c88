"""Spikformer (Zhou et al., ICLR 2023): patch splitting, spiking self-attention, sums of spikes."""

from snnvit_jax.models.spikformer.family import FAMILY
from snnvit_jax.models.spikformer.model import (
    CIFAR_FORM,
    DVS_FORM,
    IMAGENET_FORM,
    LinearForm,
    Spikformer,
    SpikformerConfig,
)

__all__ = [
    "CIFAR_FORM",
    "DVS_FORM",
    "FAMILY",
    "IMAGENET_FORM",
    "LinearForm",
    "Spikformer",
    "SpikformerConfig",
]
