"""Spikformer's published sizes, its authors' names, and how it is divided over devices."""

from snnvit_jax.models.family import Family
from snnvit_jax.models.single_stage import settings
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


def torch_name(path):
    """Returns the authors' name of a module, for example "block.0.attn.q_linear".

    Args:
      path: of the module, ("block_0", "attn", "q_linear").
    """
    return ".".join(path).replace("block_", "block.")


def unused(model):
    """Returns the names of LayerNorms that the authors construct and never call.

    Args:
      model: a `Spikformer`.
    """
    return {
        f"block.{i}.{norm}.{leaf}"
        for i in range(model.config.depth)
        for norm in ("norm1", "norm2")
        for leaf in ("weight", "bias")
    }


# Heads and hidden channels are divided (Shoeybi et al., "Megatron-LM", arXiv 1909.08053).
TENSOR_RULES = (
    (r"/attn/[qkv]_(linear|conv)/kernel$", (None, "model")),
    (r"/attn/[qkv]_(linear|conv)/bias$", ("model",)),
    (r"/attn/[qkv]_bn/", ("model",)),
    (r"/attn/proj_(linear|conv)/kernel$", ("model", None)),
    (r"/mlp/fc1_(linear|conv)/kernel$", (None, "model")),
    (r"/mlp/fc1_(linear|conv)/bias$", ("model",)),
    (r"/mlp/fc1_bn/", ("model",)),
    (r"/mlp/fc2_(linear|conv)/kernel$", ("model", None)),
)

FAMILY = Family(
    name="spikformer",
    module=Spikformer,
    config=SpikformerConfig,
    sizes=SIZES,
    torch_name=torch_name,
    unused=unused,
    tensor_rules=TENSOR_RULES,
    divided=("num_heads", "hidden_dim"),
)
