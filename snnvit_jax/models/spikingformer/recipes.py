"""Spikingformer's published recipes: what they change of Spikformer's.

Source: github.com/zhouchenlin2096/Spikingformer, cifar10/, cifar100/, imagenet/, cifar10-dvs/ and
dvs128-gesture/.
"""

from snnvit_jax.models import recipe_parts
from snnvit_jax.models.family import Recipe


def cifar(config, classes):
    """Sets 400 epochs and 10 to cool down, and another number of heads for CIFAR-100.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      classes: 10 or 100.
    """
    recipe_parts.longer_cifar(config, classes)
    if classes == 100 and config.model.name == "spikingformer_4_384":
        config.model.num_heads = 8  # on CIFAR-100 alone


def imagenet(config):
    """Sets batches of 288.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    recipe_parts.imagenet(config)
    config.batch_size = 288  # 36 on each of 8 GPUs


def dvs_gesture(config):
    """Sets twice the epochs of CIFAR10-DVS.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    recipe_parts.events(config, epochs=192)


EVENTS = "spikingformer_2_256_dvs"
RECIPES = {
    "cifar": Recipe(cifar),
    "imagenet": Recipe(imagenet),
    "cifar10_dvs": Recipe(recipe_parts.events, model=EVENTS),
    "dvs_gesture": Recipe(dvs_gesture, model=EVENTS),
}
