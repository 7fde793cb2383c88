"""Meta-SpikeFormer's published sizes, its authors' names, and what of theirs is refused."""

import re

from snnvit_jax.models.family import Family
from snnvit_jax.models.metaspikeformer.config import MetaSpikeformerConfig
from snnvit_jax.models.metaspikeformer.model import MetaSpikeformer
from snnvit_jax.models.metaspikeformer.recipes import RECIPES, small


def _imagenet(*embed_dim):
    return {"embed_dim": embed_dim, "num_heads": 8, "depth": (6, 2), "image_size": 224}


# Named by the channels of the first stage of attention: 8 blocks in all.
SIZES = {
    "metaspikeformer_8_384_imagenet": _imagenet(96, 192, 384, 480),
    "metaspikeformer_8_512_imagenet": _imagenet(128, 256, 512, 640),
    "metaspikeformer_8_768_imagenet": _imagenet(192, 384, 768, 960),
}

REFUSED = {
    "head_kd": "the second head, of distillation: published inference takes the mean of both "
    "heads, which a model of one head gives with (head + head_kd) / 2 as its weight and bias",
}


def torch_name(path):
    """Returns the authors' name of a module, for example "block3.0.attn.q_conv.0.body.2.1".

    Args:
      path: of the module, ("block3_0", "attn", "q_conv_0", "body_2_1").
    """
    return ".".join(_torch_part(part) for part in path)


def _torch_part(part):
    """Numbers of lists go behind a dot; those of stages ("downsample1_2") belong to the name."""
    if part.startswith("downsample"):
        return part
    stage = re.match(r"ConvBlock\d+_\d+|", part).group()
    return stage + re.sub(r"_(\d+)", r".\1", part.removeprefix(stage))


# Heads and the channels between two maps are divided (Shoeybi et al., "Megatron-LM", arXiv
# 1909.08053). Of a chain, the map that the heads read or that reads them: the depthwise convolution
# beside it needs all channels of the one before.
TENSOR_RULES = (
    (r"/Conv/pwconv1/kernel$", (None, "model")),
    (r"/Conv/dwconv/kernel$", (None, None, None, "model")),
    (r"/Conv/bn1/", ("model",)),
    (r"/Conv/pwconv2/kernel$", ("model", None)),
    (r"ConvBlock\d_\d_\d/conv1/kernel$", (None, None, None, "model")),
    (r"ConvBlock\d_\d_\d/bn1/", ("model",)),
    (r"ConvBlock\d_\d_\d/conv2/kernel$", (None, None, "model", None)),
    (r"/attn/[qkv]_conv_0/body_2_1/kernel$", (None, "model")),
    (r"/attn/[qkv]_conv_0/body_2_2/", ("model",)),
    (r"/attn/[qkv]_conv_1/", ("model",)),
    (r"/attn/proj_conv_0/body_0/kernel$", ("model", None)),
    (r"/mlp/fc1_conv/kernel$", (None, "model")),
    (r"/mlp/fc1_(conv/bias$|bn/)", ("model",)),
    (r"/mlp/fc2_conv/kernel$", ("model", None)),
)

FAMILY = Family(
    name="metaspikeformer",
    module=MetaSpikeformer,
    config=MetaSpikeformerConfig,
    sizes=SIZES,
    recipes=RECIPES,
    small=small,
    torch_name=torch_name,
    refused=REFUSED,
    tensor_rules=TENSOR_RULES,
    divided=("num_heads", "hidden_dim"),
)
