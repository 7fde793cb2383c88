"""Published training recipes for recordings of event cameras, as changes to the configuration.

Sources: the authors' public repositories, github.com/ZK-Zhou/spikformer (cifar10dvs/),
zhouchenlin2096/Spikingformer and zhouchenlin2096/QKFormer (cifar10-dvs/, dvs128-gesture/), run by
one script that comes from SEW-ResNet's, BICLab/Spike-Driven-Transformer (conf/) and
xyshi2000/SpikingResformer (configs/). The time-step phases are this project's: the published models
keep all of their steps.
"""

from snnvit_jax import recipes
from snnvit_jax.config import default_config, use_model

_SPLITS = "train", "test"


def cifar10_dvs(config, family):
    """Sets the published recipe of a family on CIFAR10-DVS.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      family: a key of `CIFAR10_DVS`.
    """
    CIFAR10_DVS[family](config)
    config.data.events.split_order = "name"  # as the published accuracies have it


def dvs_gesture(config, family):
    """Sets the published recipe of a family on DVS128 Gesture.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      family: a key of `DVS_GESTURE`.
    """
    DVS_GESTURE[family](config)


def config_of(variant, default, published, path):
    """Returns the configuration of a variant: a family, FAMILY:smoke, or "smoke" of the default.

    Args:
      variant: as a user gave it.
      default: the family that "smoke" alone means.
      published: `cifar10_dvs` or `dvs_gesture`.
      path: of the configuration file, for errors.

    Raises:
      ValueError: for another variant.
    """
    families = TABLES[published]
    name, _, change = (f"{default}:smoke" if variant == "smoke" else variant).partition(":")
    if name not in families or change not in ("", "smoke"):
        raise ValueError(f"unknown {variant=} of {path}; use {', '.join((*families, 'smoke'))}")
    config = default_config()
    published(config, name)
    recipes.learn_time_steps(config, target=config.model.time_steps / 2)
    config.data.name = "events"
    config.data.events.height = config.data.events.width = 128
    if change == "smoke":
        smoke(config)
    return config


def smoke(config):
    """Shrinks a recipe so that it runs to its end in a minute or two on two cores.

    Everything that the recipe does stays on, its time steps too; model, frames and numbers of
    recordings become small.

    Args:
      config: a ConfigDict with a recipe; changed in place.
    """
    recipes.smoke(config, image_size=32, batch_size=8)
    if config.model.name.startswith("qkformer"):
        config.model.depth = 2
    config.data.train_split, config.data.eval_split = (f"{name}[:32]" for name in _SPLITS)


def _one_script(config, name, *, epochs=96, learning_rate=1e-3, min_learning_rate=1e-5):
    """What Spikformer, Spikingformer and QKFormer share: 10 epochs more to cool down."""
    use_model(config, name)
    config.model.time_steps = 16
    config.epochs = epochs + 10
    config.batch_size = 16
    config.seed = 2021
    _rates(config, learning_rate, 1e-5, min_learning_rate, weight_decay=0.06)
    config.mixing.mixup_alpha = 0.5
    config.mixing.probability = 0.5
    config.mixing.off = 75 / config.epochs
    config.data.image_size = 128
    config.data.flip = True
    config.data.events.operations = "published"


def _rates(config, peak, warmup, last, weight_decay):
    """A cosine by epochs, 10 of warm-up and 10 to cool down."""
    optimizer = config.optimizer
    optimizer.learning_rate = peak
    optimizer.warmup_learning_rate = warmup
    optimizer.min_learning_rate = last
    optimizer.warmup = optimizer.cooldown = 10 / config.epochs
    optimizer.schedule = "epoch_cosine"
    optimizer.weight_decay = weight_decay
    optimizer.label_smoothing = 0.1


def _spikformer(config):
    _one_script(config, "spikformer_2_256_dvs")


def _spikingformer(config):
    _one_script(config, "spikingformer_2_256_dvs")


def _spikingformer_gesture(config):
    _one_script(config, "spikingformer_2_256_dvs", epochs=192)


def _qkformer(config):
    _one_script(config, "qkformer_2_256_dvs", learning_rate=5e-3)


def _qkformer_gesture(config):
    _one_script(config, "qkformer_2_256_dvs", epochs=192, min_learning_rate=2e-5)
    config.model.mlp_ratio = 4.0


def _sdt(config):
    """Frames of half the size, and a loss at each time step."""
    _sdt_common(config, time_steps=10, batch_size=32)
    _rates(config, 7.5e-3, 1e-3, 3e-4, weight_decay=1e-4)
    config.step_losses.on = True
    config.data.image_size = 64


def _sdt_gesture(config):
    _sdt_on_gesture(config, 10)
    _rates(config, 2e-3, 1e-5, 1e-5, weight_decay=1e-4)


def _sdt_gesture_16(config):
    _sdt_on_gesture(config, 16)
    _rates(config, 3e-4, 1e-6, 1e-5, weight_decay=6e-2)


def _sdt_on_gesture(config, time_steps):
    _sdt_common(config, time_steps, batch_size=16)
    config.optimizer.name = "lamb"
    config.optimizer.clip_norm = 1.0  # as timm's LAMB does by itself
    config.model.dvs_mode = False
    config.model.pool = (False, True, True, True)
    config.data.image_size = 128


def _sdt_common(config, time_steps, batch_size):
    use_model(config, "sdt_2_256_dvs")
    config.model.time_steps = time_steps
    config.epochs = 210
    config.batch_size = batch_size
    config.seed = 42


def _spikingresformer(config):
    """The augmentation of its authors is not among what is known of it here: there is none."""
    _spikingresformer_common(config, "spikingresformer_cifar", 5e-4)


def _spikingresformer_gesture(config):
    """See `_spikingresformer`."""
    _spikingresformer_common(config, "spikingresformer_dvsg", 1e-4)


def _spikingresformer_common(config, name, learning_rate):
    use_model(config, name)
    config.model.time_steps = 16
    config.epochs = 300
    config.batch_size = 8
    config.seed = 12450
    _rates(config, learning_rate, 1e-5, 1e-5, weight_decay=0.05)
    config.optimizer.warmup = 3 / config.epochs
    config.optimizer.cooldown = 0.0
    config.data.image_size = 64
    config.data.events.sum_channel = True


CIFAR10_DVS = {
    "spikformer": _spikformer,
    "spikingformer": _spikingformer,
    "sdt": _sdt,
    "qkformer": _qkformer,
    "spikingresformer": _spikingresformer,
}
# The authors of Spikformer publish none. Time steps are part of the name where there are two.
DVS_GESTURE = {
    "spikingformer": _spikingformer_gesture,
    "sdt": _sdt_gesture,
    "sdt_16": _sdt_gesture_16,
    "qkformer": _qkformer_gesture,
    "spikingresformer": _spikingresformer_gesture,
}
TABLES = {cifar10_dvs: CIFAR10_DVS, dvs_gesture: DVS_GESTURE}
