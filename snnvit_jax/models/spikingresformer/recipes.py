"""SpikingResformer's published recipes.

Source: github.com/xyshi2000/SpikingResformer, configs/. The augmentation of recordings is not among
what is known of it here: there is none.
"""

from snnvit_jax.models import recipe_parts
from snnvit_jax.models.family import Recipe

# Its own, by the number of classes.
STATISTICS = {
    10: (recipe_parts.CIFAR10_MEAN, (0.2023, 0.1994, 0.2010)),
    100: ((129.3 / 255, 124.1 / 255, 112.4 / 255), (68.2 / 255, 65.4 / 255, 70.4 / 255)),
}
# Size -> (images on each of 8 GPUs, learning rate, RandAugment's number and magnitude).
OF_SIZE = {
    "ti": (32, 1e-3, 2, 7.0),
    "s": (32, 1e-3, 2, 7.0),
    "m": (28, 8e-4, 2, 9.0),
    "l": (16, 5e-4, 3, 9.0),
}


def cifar(config, classes):
    """Sets 600 epochs, with mixup until the end.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      classes: 10 or 100.
    """
    _shared(config, epochs=600)
    config.batch_size = 128
    config.optimizer.learning_rate = 5e-4
    config.mixing.mixup_alpha = 0.5
    config.data.image_size = 32
    config.data.randaugment.num_ops = 1
    config.data.mean, config.data.std = STATISTICS[classes]


def imagenet(config):
    """Sets 320 epochs.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place. It differs
        from size to size.
    """
    _shared(config, epochs=320)
    images, rate, number, magnitude = OF_SIZE[config.model.name.split("_")[1]]
    config.batch_size = 8 * images
    config.optimizer.learning_rate = rate
    config.mixing.mixup_alpha = 0.2
    config.mixing.cutmix_alpha = 1.0
    config.data.image_size = 224
    config.data.random_resized_crop = True
    config.data.crop_fraction = 0.95
    config.data.randaugment.num_ops = number
    config.data.randaugment.magnitude = magnitude
    config.data.mean, config.data.std = recipe_parts.IMAGENET_MEAN, recipe_parts.IMAGENET_STD


def _shared(config, epochs):
    """Three epochs of warm-up, no erasing, no cooling down."""
    config.epochs = epochs
    config.seed = 12450
    recipe_parts.epoch_cosine(config, warmup_learning_rate=1e-5, weight_decay=0.01)
    config.optimizer.warmup = 3 / epochs
    config.optimizer.cooldown = 0.0
    config.data.flip = True
    config.data.randaugment.magnitude = 7.0


def cifar10_dvs(config):
    """Sets 300 epochs of T = 16, of frames that sum both polarities.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    _events(config, 5e-4)


def dvs_gesture(config):
    """Sets the same at a lower rate.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    _events(config, 1e-4)


def _events(config, learning_rate):
    config.model.time_steps = 16
    config.epochs = 300
    config.batch_size = 8
    config.seed = 12450
    recipe_parts.event_rates(config, learning_rate, 1e-5, 1e-5, weight_decay=0.05)
    config.optimizer.warmup = 3 / config.epochs
    config.optimizer.cooldown = 0.0
    config.data.image_size = 64
    config.data.events.sum_channel = True


RECIPES = {
    "cifar": Recipe(cifar),
    "imagenet": Recipe(imagenet),
    "cifar10_dvs": Recipe(cifar10_dvs, model="spikingresformer_cifar"),
    "dvs_gesture": Recipe(dvs_gesture, model="spikingresformer_dvsg"),
}


def small(name):
    """Returns sizes for a trial: one block in each of its three stages.

    Args:
      name: of a model.
    """
    del name
    sizes = {"embed_dim": (16, 32, 32), "num_heads": (1, 2, 2), "depth": (1, 1, 1)}
    return sizes | {"group_size": 16}
