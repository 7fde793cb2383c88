"""QKFormer (Zhou et al., NeurIPS 2024): three stages, token QK attention, sums of spikes."""

from snnvit_jax.models.qkformer.config import (
    CIFAR_FORM,
    DVS_FORM,
    IMAGENET_FORM,
    Form,
    QKFormerConfig,
)
from snnvit_jax.models.qkformer.family import FAMILY
from snnvit_jax.models.qkformer.model import QKFormer

__all__ = [
    "CIFAR_FORM",
    "DVS_FORM",
    "FAMILY",
    "IMAGENET_FORM",
    "Form",
    "QKFormer",
    "QKFormerConfig",
]
