"""A run continued with other settings: what is refused, and what becomes of its schedule."""

from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs.plan import plan

# What may not change in a run that is continued, and why: keys, and parts that end with a dot.
FIXED = {
    "model.": "the checkpoints hold the parameters of that model",
    "data.name": "what was seen and what comes next follows from it",
    "data.train_split": "what was seen and what comes next follows from it",
    "data.events.split_by": "the model has learned from other frames",
    "data.events.split_order": "what was trained on would be tested on",
    "data.repeats": "what was seen and what comes next follows from it",
    "seed": "what was seen and what comes next follows from it",
    "batch_size": "what was seen and what comes next follows from it",
    "init_from": "the run began with the weights that were there",
    "optimizer.name": "the checkpoints hold the averages of that optimiser",
    "average_decay": "the checkpoints hold the weights averaged by it",
}
# Of the model, what changes neither a parameter nor a statistic.
_FREE = (
    *("model.remat", "model.drop_path", "model.dtype"),
    *(f"model.neuron.{key}" for key in ("surrogate", "alpha", "detach_reset", "estimator")),
)
_UNSET = (0.0, None)  # of schedule_start_epoch and schedule_epochs
# What a plan resolves, and what says how.
_OF_PLAN = (
    *("epochs", "extend", "schedule_start_epoch", "schedule_epochs"),
    *(
        f"{part}.{key}" if part else key
        for part, name in config_lib.LENGTHS
        for key in (name, f"{name}_epoch", f"{name}_epochs")
    ),
)


def check_same_run(workdir, config):
    """Raises ValueError if a folder holds a run that these settings cannot continue.

    Args:
      workdir: a `Workdir`.
      config: the configuration of the run that wants to use it; it is validated first.

    Returns:
      The configuration of the run that the folder holds, or None if it holds none.
    """
    config_lib.validate(config)
    old = workdir.read_config()
    if old is None:
        return None
    old = config_lib.complete(old)
    different = config_lib.differences(old, config_lib.complete(config))
    refused = [text for text in map(_refusal, different) if text]
    if refused:
        raise ValueError(
            f"the workdir {workdir.path} holds another run ({'; '.join(refused)}); "
            "use another --workdir, or the settings it was started with"
        )
    return old


def _refusal(difference):
    """Returns "key: old -> new, but REASON", None if that may change."""
    key = difference.partition(":")[0]
    reasons = [
        reason
        for fixed, reason in FIXED.items()
        if key not in _FREE and (key == fixed or (fixed.endswith(".") and key.startswith(fixed)))
    ]
    return f"{difference}, but {reasons[0]}" if reasons else None


def resume(old, config, step, steps_per_epoch):
    """Returns the configuration with which a run goes on: its schedule is carried over or changed.

    With as many epochs as before, the schedule is the run's own. With another number, or another
    `config.extend`, that key says what becomes of it; a schedule that would end after the training
    is shortened.

    Args:
      old: configuration of the run until now.
      config: the configuration given.
      step: training steps done.
      steps_per_epoch: may be a fraction.

    Returns:
      (config, why): a copy with `schedule_start_epoch` and `schedule_epochs` set; and in one line
      what happens and what else could be done, "" if nothing does.
    """
    config = config.copy_and_resolve_references()
    given, own = (_schedule(x) for x in (config, old))
    if given not in (own, _UNSET):  # on purpose
        return config, ""
    config.schedule_start_epoch, config.schedule_epochs = own
    keys = [key for key in ("epochs", "extend") if config[key] != old[key]]
    if not keys:
        return config, ""
    why = _change_schedule(plan(old), config, step, steps_per_epoch)
    if keys == ["extend"] and _schedule(config) == own:
        return config, ""
    return config, f"{keys[0]}: {old[keys[0]]} -> {config[keys[0]]}: {why}"


def _schedule(config):
    return config.schedule_start_epoch, config.schedule_epochs


def _change_schedule(before, config, step, steps_per_epoch):
    """Changes the schedule in place, as the plan `before` has it, and says how."""
    now = step / steps_per_epoch
    if round(config.epochs * steps_per_epoch) <= step:
        config.schedule_epochs = before.schedule_epochs
        return f"epoch {now:.4g} is reached already, nothing is left to train"
    if config.extend == "restart_schedule":
        config.schedule_start_epoch, config.schedule_epochs = now, None
        return f"warm-up, cosine and phases begin again here, at epoch {now:.4g}"
    if config.extend == "stretch_schedule" or config.epochs < before.schedule_end:
        config.schedule_epochs = None
        return f"the learning rate and all phases are spread anew, to end at {config.epochs:g}"
    config.schedule_epochs = before.schedule_epochs
    return (
        f"the schedule stays as planned, to epoch {before.schedule_end:.4g}; after it the learning "
        f"rate keeps its last value {config.optimizer.min_learning_rate:.3g} and the phases stay "
        "where they are (to begin the schedule again: --config.extend=restart_schedule; to spread "
        "it over all epochs: --config.extend=stretch_schedule)"
    )


def told(old, new, why, rates):
    """Returns what changes in a run that is continued, a list of lines.

    Args:
      old: configuration of the run until now.
      new: the one with which it goes on.
      why: from `resume`.
      rates: learning rate of the next step under both.
    """
    different = config_lib.differences(old, new)
    lines = [why] if why else []
    lines += [line for line in different if line.partition(":")[0] not in _OF_PLAN]
    lines += plan(old).changes(plan(new))
    before, after = (f"{float(rate):.3g}" for rate in rates)
    if before != after:
        lines.append(f"learning rate of the next step: {before} -> {after}")
    return lines
