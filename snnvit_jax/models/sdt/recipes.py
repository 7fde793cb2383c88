"""The Spike-driven Transformer's published recipes.

Source: github.com/BICLab/Spike-Driven-Transformer, conf/, run by timm's training script.
"""

from snnvit_jax.models import recipe_parts
from snnvit_jax.models.family import Recipe


def cifar(config, classes):
    """Sets what its authors change of Spikformer's: batches of 64, a lower rate, no erasing.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      classes: 10 or 100.
    """
    recipe_parts.cifar(config, classes)
    config.batch_size = 64
    recipe_parts.epoch_cosine(config, warmup_learning_rate=1e-6, weight_decay=0.06)
    config.optimizer.learning_rate = 3e-4
    config.data.randaugment.operations = "all"
    config.data.erasing_probability = 0.0


def imagenet(config):
    """Sets 300 epochs of LAMB and 10 to cool down.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place. That of 8-768
        differs from that of the other models.
    """
    large = config.model.name.startswith("sdt_8_768")
    recipe_parts.imagenet(config)
    config.batch_size = 288 if large else 384  # 36 or 48 on each of 8 GPUs
    recipe_parts.epoch_cosine(config, warmup_learning_rate=1e-5, weight_decay=0.01)
    _lamb(config)
    config.optimizer.learning_rate = 1e-3 if large else 1.5e-3
    config.optimizer.min_learning_rate = 2e-5 if large else 1.5e-5
    config.mixing.mixup_alpha = 0.2
    config.mixing.probability = 1.0 if large else 0.6
    config.data.crop_scale = (0.08, 1.0) if large else (0.2, 1.0)
    config.data.crop_fraction = 0.95
    config.data.randaugment.magnitude = 7.0 if large else 5.0
    config.data.erasing_probability = 0.0
    config.data.repeats = 3


def cifar10_dvs(config):
    """Sets frames of half the size, and a loss at each of 10 time steps.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    _events(config, time_steps=10, batch_size=32)
    recipe_parts.event_rates(config, 7.5e-3, 1e-3, 3e-4, weight_decay=1e-4)
    config.step_losses.on = True
    config.data.image_size = 64


def dvs_gesture(config):
    """Sets LAMB and 10 time steps.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    _gesture(config, 10)
    recipe_parts.event_rates(config, 2e-3, 1e-5, 1e-5, weight_decay=1e-4)


def dvs_gesture_16(config):
    """Sets LAMB and 16 time steps, at other rates.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    _gesture(config, 16)
    recipe_parts.event_rates(config, 3e-4, 1e-6, 1e-5, weight_decay=6e-2)


def _gesture(config, time_steps):
    _events(config, time_steps, batch_size=16)
    _lamb(config)
    config.model.dvs_mode = False
    config.model.pool = (False, True, True, True)
    config.data.image_size = 128


def _events(config, time_steps, batch_size):
    config.model.time_steps = time_steps
    config.epochs = 210
    config.batch_size = batch_size
    config.seed = 42


def _lamb(config):
    config.optimizer.name = "lamb"
    config.optimizer.clip_norm = 1.0  # as timm's LAMB does by itself


EVENTS = "sdt_2_256_dvs"
RECIPES = {
    "cifar": Recipe(cifar),
    "imagenet": Recipe(imagenet),
    "cifar10_dvs": Recipe(cifar10_dvs, model=EVENTS),
    "dvs_gesture": Recipe(dvs_gesture, model=EVENTS),
    "dvs_gesture_16": Recipe(dvs_gesture_16, model=EVENTS),
}
