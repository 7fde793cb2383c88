"""Spikformer's published sizes, its authors' names, and how it is divided over devices."""

from snnvit_jax.models.family import Family
from snnvit_jax.models.spikformer.model import IMAGENET_FORM, Spikformer, SpikformerConfig


def _cifar(depth, embed_dim, num_heads):
    return {"depth": depth, "embed_dim": embed_dim, "num_heads": num_heads, "image_size": 32}


def _imagenet(depth, embed_dim, num_heads):
    imagenet = {"image_size": 224, "pool": (True,) * 4, "form": IMAGENET_FORM}
    return {"depth": depth, "embed_dim": embed_dim, "num_heads": num_heads, **imagenet}


SIZES = {
    # The paper leaves the heads of 4-256 open; 8 gives them the size 32 of the others.
    "spikformer_4_256": _cifar(4, 256, 8),
    "spikformer_2_384": _cifar(2, 384, 12),
    "spikformer_4_384": _cifar(4, 384, 12),
    "spikformer_8_384_imagenet": _imagenet(8, 384, 8),
    "spikformer_8_512_imagenet": _imagenet(8, 512, 8),
    "spikformer_10_512_imagenet": _imagenet(10, 512, 8),
    "spikformer_8_768_imagenet": _imagenet(8, 768, 12),
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
