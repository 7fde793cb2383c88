"""QKFormer's published recipes.

Source: github.com/zhouchenlin2096/QKFormer, cifar10/, cifar100/, imagenet/, cifar10-dvs/ and
dvs128-gesture/.
"""

from snnvit_jax.models import recipe_parts
from snnvit_jax.models.family import Recipe


def cifar(config, classes):
    """Sets 400 epochs and 10 to cool down, at twice the rate of Spikingformer's.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      classes: 10 or 100.
    """
    recipe_parts.longer_cifar(config, classes)
    config.optimizer.learning_rate = 1e-3


def imagenet(config):
    """Sets 200 epochs.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    recipe_parts.imagenet_by_steps(config, epochs=200, warmup_epochs=5)
    config.batch_size = 512  # 32 on each of 8 GPUs, twice
    config.optimizer.learning_rate = 6e-4 * 512 / 256


def cifar10_dvs(config):
    """Sets five times the rate of the script that it shares with others.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    recipe_parts.events(config, learning_rate=5e-3)


def dvs_gesture(config):
    """Sets twice the epochs, and an MLP of four times the channels.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    recipe_parts.events(config, epochs=192, min_learning_rate=2e-5)
    config.model.mlp_ratio = 4.0


EVENTS = "qkformer_2_256_dvs"
RECIPES = {
    "cifar": Recipe(cifar),
    "imagenet": Recipe(imagenet),
    "cifar10_dvs": Recipe(cifar10_dvs, model=EVENTS),
    "dvs_gesture": Recipe(dvs_gesture, model=EVENTS),
}


def small(name):
    """Returns sizes for a trial: with a block in each of its three stages, two for events.

    Args:
      name: of a model.
    """
    return {"embed_dim": 64, "num_heads": 2, "depth": 2 if name.endswith("_dvs") else 4}
