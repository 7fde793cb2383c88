"""What training minimises, cross entropy and penalties; and when the scores may move."""

import dataclasses

import jax.numpy as jnp
import optax

from snnvit_jax.common import values
from snnvit_jax.time_steps import masks, spike_price

_STEP = values.whole(0, 2**31 - 1)

# What each setting must be, by its name.
STEP_LOSSES_RULES = {"weight": values.number(0, 1), "level": values.number(0)}
RULES = {
    "label_smoothing": values.number(0, 1),
    "time_step_penalty": values.number(0),
    "target_time_steps": values.optional(values.number(0)),
    "min_time_steps": values.whole(0),
    "groups": values.one_of(masks.GROUPS),
    "start_step": _STEP,
    "anneal_steps": _STEP,
    "freeze_step": values.optional(_STEP),
    "patience_steps": values.number(above=0),
    "estimator": values.one_of(masks.ESTIMATORS),
}


@dataclasses.dataclass(frozen=True)
class StepLosses:
    """Temporal efficient training: a loss at each time step (Deng et al., ICLR 2022, equation 10).

        (1 - weight) mean over t of cross entropy(logits[t], target)
            + weight * mean over t and classes of (logits[t] - level)^2

    Attributes:
      weight: of the second term, in [0, 1].
      level: that it draws logits to, >= 0.

    Raises:
      ValueError: naming a value that does not fit.
    """

    weight: float = 0.001
    level: float = 1.0

    def __post_init__(self):
        values.check_fields(self, STEP_LOSSES_RULES, "step_losses")

    def losses(self, logits, targets):
        """Returns the loss of each example, [B].

        Args:
          logits: of each time step, [B, T, K] float32.
          targets: [B, K] probabilities.
        """
        entropy = jnp.mean(optax.softmax_cross_entropy(logits, targets[:, None]), axis=1)
        away = jnp.mean(jnp.square(logits - self.level), axis=(1, 2))
        return (1 - self.weight) * entropy + self.weight * away


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised, cross entropy and penalties; and when the scores may move.

    Attributes:
      label_smoothing: in [0, 1].
      time_step_penalty: >= 0. Without a target the weight of the average number of time steps over
        T; with one, by how much that weight grows in `patience_steps` for each time step of excess.
      target_time_steps: average to end at, a budget; None to let the penalty alone decide.
      min_time_steps: steps every layer keeps, >= 0.
      groups: which layers have one schedule, one of `masks.GROUPS`.
      start_step: training step from which the scores learn.
      anneal_steps: over so many steps from there on, the budget comes down from T to the target.
      freeze_step: training step from which they stay as they are; None for never.
      patience_steps: training steps in which an excess of one time step adds `time_step_penalty`
        to the weight, > 0; a run takes those of one epoch.
      estimator: straight-through estimator of the penalty's gradient.
      spike_prices: ((layer name, what one spike adds to the objective for its image), ...); empty
        if spikes are free.
      step_losses: None, or a `StepLosses`: the logits of each time step are judged, not their mean.

    Raises:
      ValueError: naming a value that does not fit.
    """

    label_smoothing: float = 0.0
    time_step_penalty: float = 0.0
    target_time_steps: float | None = None
    min_time_steps: int = 1
    groups: str = "layer"
    start_step: int = 0
    anneal_steps: int = 0
    freeze_step: int | None = None
    patience_steps: float = 100.0
    estimator: str = "identity"
    spike_prices: tuple[tuple[str, float], ...] = ()
    step_losses: StepLosses | None = None

    def __post_init__(self):
        values.check_fields(self, RULES, "objective")

    def losses(self, logits, step_logits, targets):
        """Returns what the labels charge for each example, [B].

        Args:
          logits: [B, K] float32.
          step_logits: of each time step, [B, T, K]; None without `step_losses`.
          targets: [B, K] probabilities.
        """
        if self.step_losses is None:
            return optax.softmax_cross_entropy(logits, targets)
        return self.step_losses.losses(step_logits, targets)

    def price_variables(self, examples):
        """Returns the prices of spikes as variables of the model, for a mean over examples.

        Args:
          examples: how many a batch holds, >= 1.
        """
        if not self.spike_prices:
            return {}
        return spike_price.as_variables(dict(self.spike_prices), 1 / examples)

    def budget(self, step, time_steps):
        """Returns the average number of time steps allowed after `step` steps, or None.

        It comes down gradually from T to the target, so that the model gives up one step after the
        other, the least useful first, and has time to adapt to each loss.

        Args:
          step: training steps done.
          time_steps: T.
        """
        if self.target_time_steps is None:
            return None
        if self.anneal_steps:
            progress = jnp.clip((step - self.start_step) / self.anneal_steps, 0.0, 1.0)
        else:
            progress = jnp.where(step >= self.start_step, 1.0, 0.0)
        return time_steps + (self.target_time_steps - time_steps) * progress

    def floor(self, params, step):
        """Returns the average number of time steps that the update after `step` steps must leave.

        Of many scores that cross zero together, no more steps are lost than the budget allows by
        now. A model that starts with fewer, learned before, need not take back any above the
        target.

        Args:
          params: the model's "params" before the update.
          step: training steps done.
        """
        if self.target_time_steps is None:
            return None
        (time_steps,) = next(iter(masks.scores(params).values())).shape
        budget = self.budget(step, time_steps)
        average = masks.average_time_steps(params, self.estimator)
        return jnp.maximum(jnp.minimum(budget, average), self.target_time_steps)

    def next_penalty_weight(self, state, time_steps):
        """Returns the weight of the penalty for the next step: it grows while above the budget.

        An excess of one time step adds `time_step_penalty` in `patience_steps`; being below takes
        as much away, down to zero. (Dual ascent on the constraint average <= budget.)

        Args:
          state: the `TrainState` of this step.
          time_steps: T.
        """
        budget = self.budget(state.step, time_steps)
        if budget is None:
            return jnp.float32(self.time_step_penalty)
        excess = masks.average_time_steps(state.params) - budget
        change = self.time_step_penalty * excess / self.patience_steps
        learning = self.scores_learn(state.step)
        return jnp.maximum(state.penalty_weight + jnp.where(learning, change, 0.0), 0.0)

    def scores_learn(self, step):
        """Returns whether the update after `step` steps may move the scores.

        Args:
          step: training steps done; may be traced.
        """
        started = step >= self.start_step
        return started if self.freeze_step is None else started & (step < self.freeze_step)


def cross_entropy(logits, labels):
    """Returns the cross entropy of each example, [B] float32.

    Args:
      logits: [B, K].
      labels: [B], whole numbers in [0, K).
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
