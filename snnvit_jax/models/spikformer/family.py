"""Spikformer's published sizes, its authors' names, and how it is divided over devices."""

from snnvit_jax.models.family import Family
from snnvit_jax.models.single_stage import settings, tensor_rules, torch_name, unused_norms
from snnvit_jax.models.spikformer.model import IMAGENET_FORM, Spikformer, SpikformerConfig


def _imagenet(**sizes):
    return settings(224, **sizes) | {"form": IMAGENET_FORM}


SIZES = {
    # The paper leaves the heads of 4-256 open; 8 gives them the size 32 of the others.
    "spikformer_4_256": settings(32, depth=4, embed_dim=256, num_heads=8),
    "spikformer_2_384": settings(32, depth=2, embed_dim=384, num_heads=12),
    "spikformer_4_384": settings(32, depth=4, embed_dim=384, num_heads=12),
    "spikformer_8_384_imagenet": _imagenet(depth=8, embed_dim=384, num_heads=8),
    "spikformer_8_512_imagenet": _imagenet(depth=8, embed_dim=512, num_heads=8),
    "spikformer_10_512_imagenet": _imagenet(depth=10, embed_dim=512, num_heads=8),
    "spikformer_8_768_imagenet": _imagenet(depth=8, embed_dim=768, num_heads=12),
}


FAMILY = Family(
    name="spikformer",
    module=Spikformer,
    config=SpikformerConfig,
    sizes=SIZES,
    torch_name=torch_name,
    unused=unused_norms,
    tensor_rules=tensor_rules("fc"),
    divided=("num_heads", "hidden_dim"),
)
