"""Published training recipes by data set, as changes to the default configuration.

Lengths are shares of the training, so that all of them follow `config.epochs`. A family's recipes
stand in its folder in models/, with the repository that they are from. The time-step phases are
this project's: the published models keep all of their steps.
"""

from snnvit_jax.config import default_config, use_model
from snnvit_jax.models import FAMILIES, family_of

_WEIGHTS = "WEIGHTS"  # no such file: the error says which key to set
# Far above the usual norm of a gradient, which is about 1. That of a branch that falls silent can
# be a million times as large, and Adam's averages keep it for a thousand steps, in which the
# weights that it reached hardly move (docs/method.md). The published recipes have no limit.
SAFE_CLIP_NORM = 10.0
_EVENT_SPLITS = "train", "test"


def published_cifar(config, name, classes=10):
    """Chooses a model and sets its published recipe on CIFAR.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      name: of the model.
      classes: 10 or 100.

    Raises:
      ValueError: for a model that has none.
    """
    _recipe(config, name, "cifar").change(config, classes)


def published_imagenet(config, name):
    """Chooses a model and sets its published recipe on ImageNet.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      name: of the model.

    Raises:
      ValueError: for a model that has none.
    """
    _recipe(config, name, "imagenet").change(config)


def _recipe(config, name, data):
    recipes = family_of(name).recipes
    if data not in recipes:
        have = ", ".join(family.name for family in FAMILIES.values() if data in family.recipes)
        raise ValueError(f"{name=} has no recipe for {data!r}; models of {have} have")
    use_model(config, name)
    return recipes[data]


def event_variants(data):
    """Returns {variant: `Recipe`} of a set of recordings: a family, with T where it has several.

    Args:
      data: "cifar10_dvs" or "dvs_gesture".
    """
    return {
        family.name + key.removeprefix(data): recipe
        for family in FAMILIES.values()
        for key, recipe in family.recipes.items()
        if key.startswith(data)
    }


def published_events(data, variant, default):
    """Returns the configuration of a published recipe for recordings of event cameras.

    Args:
      data: "cifar10_dvs" or "dvs_gesture", whose file in configs/ errors name.
      variant: a key of `event_variants`, perhaps with ":smoke"; "smoke" alone is of the default.
      default: a key of `event_variants`.

    Raises:
      ValueError: for another variant.
    """
    known = event_variants(data)
    name, _, change = (f"{default}:smoke" if variant == "smoke" else variant).partition(":")
    if name not in known or change not in ("", "smoke"):
        usable = ", ".join((*known, "smoke"))
        raise ValueError(f"unknown {variant=} of configs/{data}.py; use {usable}")
    config = default_config()
    use_model(config, known[name].model)
    known[name].change(config)
    learn_time_steps(config, target=config.model.time_steps / 2)
    config.data.name = "events"
    config.data.events.height = config.data.events.width = 128
    if change == "smoke":
        smoke(config, image_size=32, batch_size=4)
        config.epochs = 4  # of eight steps: fewer leave running statistics where they began
        config.optimizer.score_multiplier = 0.4 / config.optimizer.learning_rate
        config.data.train_split, config.data.eval_split = (f"{s}[:32]" for s in _EVENT_SPLITS)
    return config


def learn_time_steps(config, target):
    """Sets the time-step phases as shares of the training: all steps, giving up, settling, fixed.

    Args:
      config: a ConfigDict; changed in place.
      target: average number of time steps to end at, in [1, T].
    """
    config.time_step_penalty = 1.0
    config.target_time_steps = float(target)
    config.time_step_start = 0.2
    config.time_step_anneal = 0.4
    config.time_step_freeze = 0.8


def finetune_time_steps(config, target):
    """Turns a recipe into one that teaches a trained model to give up time steps.

    A tenth of the epochs at a fifth of the learning rate; all weights adapt. The weights to start
    from are to be given as `init_from`. For a model that is published in two stages, it is the
    second of them.

    Args:
      config: a ConfigDict with a recipe; changed in place.
      target: average number of time steps to end at, in [1, T].
    """
    config.init_from = _WEIGHTS
    learn_time_steps(config, target)
    config.optimizer.clip_norm = config.optimizer.clip_norm or SAFE_CLIP_NORM
    second = family_of(config.model.name).recipes.get("finetune")
    (second.change if second else _short_stage)(config)


def _short_stage(config):
    config.epochs = 31
    config.optimizer.learning_rate /= 5
    config.optimizer.warmup = 1 / 31
    config.optimizer.cooldown = 1 / 31
    config.mixing.off = 20 / 31
    config.time_step_start = 1 / 31


def smoke(config, image_size, batch_size):
    """Shrinks a recipe so that it runs to its end in a minute or two on two cores.

    Everything that the recipe does stays on; model, images and numbers of examples become small.

    Args:
      config: a ConfigDict with a recipe; changed in place.
      image_size: pixels, a multiple of 16.
      batch_size: examples in a batch.
    """
    config.epochs = 2
    config.batch_size = batch_size
    config.log_every_steps = 2
    config.optimizer.warmup = 0.25
    config.optimizer.cooldown = 0.25
    if config.mixing.off is not None:
        config.mixing.off = 0.75
    if config.model.time_steps > 1:
        learn_time_steps(config, target=3.0)
        config.time_step_penalty = 20.0
        config.optimizer.score_multiplier = 100.0  # there are a few dozen steps only
    config.model.update(family_of(config.model.name).small(config.model.name))
    config.data.image_size = image_size
