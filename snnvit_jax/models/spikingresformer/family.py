"""SpikingResformer's published sizes and its authors' names."""

import re

from snnvit_jax.models.family import Family
from snnvit_jax.models.spikingresformer.config import SpikingResformerConfig
from snnvit_jax.models.spikingresformer.model import SpikingResformer
from snnvit_jax.models.spikingresformer.recipes import RECIPES, small
from snnvit_jax.neurons import LIFNeuron, PLIFNeuron


def _sizes(embed_dim, num_heads, image_size, stem="small", neuron=LIFNeuron, **others):
    neuron = neuron(surrogate="arctan")
    sizes = {"embed_dim": embed_dim, "num_heads": num_heads, "depth": (1, 2, 3), "neuron": neuron}
    return {**sizes, "image_size": image_size, "stem": stem, **others}


# The smallest is called "Ti" by its authors, its form for small images "Ti*".
SIZES = {
    "spikingresformer_cifar": _sizes((64, 192, 384), (1, 3, 6), 32),
    "spikingresformer_ti_imagenet": _sizes((64, 192, 384), (1, 3, 6), 224, "imagenet"),
    "spikingresformer_s_imagenet": _sizes((64, 256, 512), (1, 4, 8), 224, "imagenet"),
    "spikingresformer_m_imagenet": _sizes((64, 384, 768), (1, 6, 12), 224, "imagenet"),
    "spikingresformer_l_imagenet": _sizes((128, 512, 1024), (2, 8, 16), 224, "imagenet"),
    "spikingresformer_dvsg": _sizes((32, 96, 192), (1, 3, 6), 64, neuron=PLIFNeuron, group_size=32),
}


def torch_name(path):
    """Returns the authors' name of a module, for example "layers.1.2.conv.0.1".

    Args:
      path: of the module, ("layers_1_2", "conv_0_1").
    """
    return ".".join(re.sub(r"_(\d+)", r".\1", part) for part in path)


# Hidden channels are divided, group by group; attention is not, because the first stage has one
# head (Shoeybi et al., "Megatron-LM", arXiv 1909.08053). XLA does not divide a convolution in
# groups by its groups: it gathers the hidden channels around it. Weights and their moments are
# divided all the same; where memory does not ask for it, "fsdp" sends less.
TENSOR_RULES = (
    (r"/up_1/kernel$", (None, "model")),
    (r"/(up_2|conv_0_2)/bn/", ("model",)),
    (r"/conv_0_1/kernel$", (None, None, None, "model")),
    (r"/down_1/kernel$", ("model", None)),
)

FAMILY = Family(
    name="spikingresformer",
    module=SpikingResformer,
    config=SpikingResformerConfig,
    sizes=SIZES,
    recipes=RECIPES,
    small=small,
    torch_name=torch_name,
    tensor_rules=TENSOR_RULES,
    divided=("hidden_groups",),
    head="classifier",
)
