"""What each value of a configuration must be: one rule for each key.

What takes more than one value, the data, the model or the devices to judge is judged elsewhere:
`config.validate`, `experiment.build`.
"""

import re

from ml_collections import config_dict

from snnvit_jax.common import values
from snnvit_jax.common.values import flag, number, one_of, optional, several, text, whole
from snnvit_jax.data.augment import pipeline, recording_pipeline
from snnvit_jax.data.loader import ON_DAMAGED
from snnvit_jax.data.sources.events import settings
from snnvit_jax.distributed import sharding
from snnvit_jax.neurons.without_spikes import MOST_LEVELS
from snnvit_jax.training import distillation, mixing, nonfinite, objective, optimizer, step

# What a run continued with more epochs does with its schedule.
EXTEND = ("final_rate", "restart_schedule", "stretch_schedule")
# JAX takes the lower half of larger seeds: two of them would begin alike.
_SEED = whole(0, 2**32 - 1)
_DEVICES = values.Rule(
    "a whole number of devices, at least 1, or -1 for all there are",
    lambda value: whole(-1).fits(value) and value != 0,
)
_MOST = 1024  # of what is repeated so often: to make it takes time and memory for each
# A family with several stages has one for each.
_WIDTHS = optional(values.one_or_several(whole(1, 2**16)))


def _are_multipliers(value):
    return isinstance(value, (tuple, list)) and all(map(_is_multiplier, value))


def _is_multiplier(value):
    return isinstance(value, (tuple, list)) and len(value) == 2 and _fit(*value)


def _fit(pattern, factor):
    return text().fits(pattern) and _is_pattern(pattern) and number(0).fits(factor)


def _is_pattern(pattern):
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


_MULTIPLIERS = values.Rule("((regular expression, number, at least 0), ...)", _are_multipliers)

RULES = {
    "seed": _SEED,
    "epochs": number(above=0),
    "batch_size": whole(1),
    "accumulate": whole(1),
    "average_decay": optional(number(0, 0.999999)),
    "on_nonfinite": one_of(nonfinite.ON_NONFINITE),
    "mesh.data": _DEVICES,
    "mesh.model": _DEVICES,
    "sharding": one_of(sharding.SHARDINGS),
    "init_from": optional(text()),
    "trainable": one_of(step.TRAINABLE),
    "time_step_penalty": objective.RULES["time_step_penalty"],
    "target_time_steps": optional(number(above=0)),
    "spike_penalty": number(0),
    "min_time_steps": objective.RULES["min_time_steps"],
    "time_step_groups": objective.RULES["groups"],
    "extend": one_of(EXTEND),
    "schedule_start_epoch": number(0),
    "schedule_epochs": optional(number(above=0)),
    "time_step_start": number(0, 1),
    "time_step_start_epoch": optional(number(0)),
    "time_step_anneal": number(0, 1),
    "time_step_anneal_epochs": optional(number(0)),
    "time_step_freeze": optional(number(0, 1)),
    "time_step_freeze_epoch": optional(number(0)),
    "model.name": text(),
    "model.time_steps": whole(1, _MOST),
    "model.dtype": one_of(("float32", "bfloat16")),
    "model.embed_dim": _WIDTHS,
    "model.num_heads": _WIDTHS,
    "model.depth": optional(values.one_or_several(whole(1, _MOST))),
    "model.mlp_ratio": optional(values.one_or_several(number(1e-6, _MOST))),
    "model.pool": optional(several(flag())),
    "model.remat": one_of(("none", "block")),
    "model.drop_path": number(0, below=1),
    "model.neuron.kind": optional(text()),
    "model.neuron.tau": optional(number(1)),
    "model.neuron.reset": optional(text()),
    "model.neuron.surrogate": optional(text()),
    "model.neuron.alpha": optional(number(above=0)),
    "model.neuron.detach_reset": optional(flag()),
    "model.neuron.levels": optional(whole(1, MOST_LEVELS)),
    "model.neuron.estimator": optional(text()),
    "data.name": text(),
    "data.dir": optional(text()),
    "data.train_split": text(),
    "data.eval_split": text(),
    **{f"data.{key}": rule for key, rule in pipeline.RULES.items()},
    **{f"data.events.{key}": rule for key, rule in settings.RULES.items()},
    **{f"data.events.{key}": rule for key, rule in recording_pipeline.RULES.items()},
    "data.repeats": whole(1),
    "data.on_damaged": one_of(ON_DAMAGED),
    "data.workers": whole(0, _MOST),
    **{f"mixing.{key}": rule for key, rule in mixing.RULES.items() if key != "off_step"},
    "mixing.off": optional(number(0, 1)),
    "mixing.off_epoch": optional(number(0)),
    "distillation.teacher": optional(text()),
    **{f"distillation.{key}": rule for key, rule in distillation.RULES.items()},
    "optimizer.name": one_of(optimizer.OPTIMIZERS),
    "optimizer.learning_rate": number(1e-12),
    "optimizer.min_learning_rate": number(0),
    "optimizer.warmup_learning_rate": number(0),
    "optimizer.warmup": number(0, 1),
    "optimizer.warmup_epochs": optional(number(0)),
    "optimizer.schedule": one_of(optimizer.SCHEDULES),
    "optimizer.cooldown": number(0, 1),
    "optimizer.cooldown_epochs": optional(number(0)),
    "optimizer.weight_decay": number(0),
    "optimizer.score_multiplier": number(0),
    "optimizer.multipliers": _MULTIPLIERS,
    "optimizer.clip_norm": optional(number(1e-12)),
    "optimizer.trust_clip": flag(),
    "optimizer.label_smoothing": objective.RULES["label_smoothing"],
    "step_losses.on": flag(),
    **{f"step_losses.{key}": rule for key, rule in objective.STEP_LOSSES_RULES.items()},
    "log_every_steps": whole(1),
    "eval_every_epochs": number(above=0),
    "save_every_seconds": number(0),
    "keep_checkpoints": whole(1),
}


def check(config):
    """Raises ValueError naming the first key, and its value, that does not fit its rule.

    Args:
      config: a ConfigDict with the keys of `config.default_config`.
    """
    for key, value in flatten(config).items():
        if key in RULES:  # the others are a family's own settings, and judged by it
            RULES[key].check(key, value)


def check_patterns(multipliers, names):
    """Raises ValueError naming the first pattern in which no parameter's name is found.

    Args:
      multipliers: `config.optimizer.multipliers`, checked.
      names: of all parameters of the model, such as "block_0/attn/q_linear/kernel".
    """
    for pattern, _ in multipliers:
        if not any(re.search(pattern, name) for name in names):
            raise ValueError(
                f"optimizer.multipliers={multipliers!r}: {pattern!r} is found in none of the "
                f"{len(names)} names of parameters, such as {', '.join(sorted(names)[:3])}"
            )


def flatten(config, prefix=""):
    """Returns {"section.key": value} of a configuration, in its order.

    Args:
      config: a ConfigDict.
      prefix: of the keys' names.
    """
    found = {}
    for key, value in config.items():
        if isinstance(value, config_dict.ConfigDict):
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
