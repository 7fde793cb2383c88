"""Spikingformer's published sizes, its authors' names, and how it is divided over devices."""

from snnvit_jax.models.family import Family
from snnvit_jax.models.single_stage import settings, small, tensor_rules, torch_name, unused_norms
from snnvit_jax.models.spikingformer.model import Spikingformer, SpikingformerConfig
from snnvit_jax.models.spikingformer.recipes import RECIPES
from snnvit_jax.neurons import LIFNeuron

SIZES = {
    # The paper leaves the heads of 4-256 open; 8 gives them the size 32 of the others. On CIFAR-100
    # the authors train 4-384 with 8 heads.
    "spikingformer_4_256": settings(32, depth=4, embed_dim=256, num_heads=8),
    "spikingformer_2_384": settings(32, depth=2, embed_dim=384, num_heads=12),
    "spikingformer_4_384": settings(32, depth=4, embed_dim=384, num_heads=12),
    "spikingformer_8_384_imagenet": settings(224, depth=8, embed_dim=384, num_heads=8),
    "spikingformer_8_512_imagenet": settings(224, depth=8, embed_dim=512, num_heads=8),
    "spikingformer_8_768_imagenet": settings(224, depth=8, embed_dim=768, num_heads=8),
    # For event cameras every neuron has a time constant of 1.5, that of the attention too.
    "spikingformer_2_256_dvs": settings(128, depth=2, embed_dim=256, num_heads=16)
    | {"neuron": LIFNeuron(tau=1.5), "stages": ("proj", "proj1", "proj2", "proj3", "proj4")},
}


FAMILY = Family(
    name="spikingformer",
    module=Spikingformer,
    config=SpikingformerConfig,
    sizes=SIZES,
    recipes=RECIPES,
    small=small,
    torch_name=torch_name,
    unused=unused_norms,
    tensor_rules=tensor_rules("mlp"),
    divided=("num_heads", "hidden_dim"),
)
