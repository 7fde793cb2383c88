"""Spikformer (Zhou et al., ICLR 2023)."""

from snnvit_jax.models.spikformer.model import (
    ATTENTION_THRESHOLD,
    CIFAR_FORM,
    CIFAR_POOL,
    IMAGENET_FORM,
    Attention,
    Block,
    LinearForm,
    Mlp,
    PatchEmbedding,
    Spikformer,
    SpikformerConfig,
    block_type,
    linear_bn_lif,
)

__all__ = [
    "ATTENTION_THRESHOLD",
    "CIFAR_FORM",
    "CIFAR_POOL",
    "IMAGENET_FORM",
    "Attention",
    "Block",
    "LinearForm",
    "Mlp",
    "PatchEmbedding",
    "Spikformer",
    "SpikformerConfig",
    "block_type",
    "linear_bn_lif",
]
