"""When things happen in a training: the lengths of its configuration, resolved."""

import dataclasses

from snnvit_jax.runs.config import schedule_epochs
from snnvit_jax.training.lengths import in_epochs

# What a log calls the points in time.
_NAMES = {
    "schedule_start": "schedule from",
    "warm": "warm-up to",
    "scores_start": "scores of time steps learn from",
    "target": "budget at its target from",
    "scores_end": "masks fixed from",
    "mixing_end": "no mixing from",
    "cool": "cool-down from",
    "schedule_end": "schedule to",
    "end": "training to",
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Points in time of a training, in epochs from its start; None for never.

    Attributes:
      end: of the training.
      schedule_start: where warm-up, cosine and phases begin.
      schedule_end: where the learning rate has reached its last value.
      warm: end of the warm-up.
      cool: start of the cool-down at the end of the schedule; None without one.
      scores_start: from here on the scores of the time steps learn.
      anneal: epochs in which the budget comes down from T to the target.
      target: from here on the budget is the target; None without a target.
      scores_end: from here on the masks stay as they are.
      mixing_end: from here on nothing is mixed.
    """

    end: float
    schedule_start: float
    schedule_end: float
    warm: float
    cool: float | None
    scores_start: float
    anneal: float
    target: float | None
    scores_end: float | None
    mixing_end: float | None

    @property
    def schedule_epochs(self):
        """Epochs of the schedule."""
        return self.schedule_end - self.schedule_start

    def described(self):
        """Returns the plan in one line of text."""
        times = {name: _text(getattr(self, name)) for name in _NAMES}
        if times["schedule_start"] == "epoch 0":
            del times["schedule_start"]
        if times["schedule_end"] == times["end"]:
            del times["schedule_end"]
        return ", ".join(f"{_NAMES[name]} {at}" for name, at in times.items() if at != "never")

    def changes(self, new):
        """Returns what is at another time in another plan, a list of lines.

        Args:
          new: a `Plan`.
        """
        times = {name: (_text(getattr(self, name)), _text(getattr(new, name))) for name in _NAMES}
        return [
            f"{_NAMES[name]} {old} -> {later}"
            for name, (old, later) in times.items()
            if old != later
        ]


def plan(config):
    """Returns the plan of a configuration.

    Args:
      config: a ConfigDict, validated.
    """
    length, begin = schedule_epochs(config), config.schedule_start_epoch

    def at(settings, name):
        epochs = in_epochs(settings, name, length)
        return None if epochs is None else begin + epochs

    cooldown = in_epochs(config.optimizer, "cooldown", length)
    scores_start = at(config, "time_step_start")
    anneal = in_epochs(config, "time_step_anneal", length)
    return Plan(
        end=config.epochs,
        schedule_start=begin,
        schedule_end=begin + length,
        warm=at(config.optimizer, "warmup"),
        cool=begin + length - cooldown if cooldown else None,
        scores_start=scores_start,
        anneal=anneal,
        target=None if config.target_time_steps is None else scores_start + anneal,
        scores_end=at(config, "time_step_freeze"),
        mixing_end=at(config.mixing, "off"),
    )


def _text(epochs):
    return "never" if epochs is None else f"epoch {epochs:.6g}"
