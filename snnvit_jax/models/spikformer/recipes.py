"""Spikformer's published recipes, from which most of the others' are made.

Source: github.com/ZK-Zhou/spikformer, cifar10/, imagenet/ and cifar10dvs/. There is none for DVS128
Gesture.
"""

from snnvit_jax.models import recipe_parts
from snnvit_jax.models.family import Recipe

RECIPES = {
    "cifar": Recipe(recipe_parts.cifar),
    "imagenet": Recipe(recipe_parts.imagenet),
    "cifar10_dvs": Recipe(recipe_parts.events, model="spikformer_2_256_dvs"),
}
