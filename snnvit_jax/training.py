"""One training step and one evaluation step, as pure functions of a state and a batch.

A batch is {"image": [B, H, W, C] float32, "label": [B] int32, "mask": [B] bool}; the mask is False
for padding in the last batch of an evaluation.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import optax

from snnvit_jax import energy, timesteps


class TrainState(flax.struct.PyTreeNode):
    """Everything that a training step changes.

    Attributes:
      step: optimiser steps done, int32 scalar.
      params: of the model, scores included, float32.
      batch_stats: running statistics of its normalisations, float32.
      opt_state: of the optimiser.
      penalty_weight: present weight of the time steps in the objective, float32 scalar.
    """

    step: jax.Array
    params: dict
    batch_stats: dict
    opt_state: optax.OptState
    penalty_weight: jax.Array

    @property
    def variables(self):
        """The model's variables: {"params", "batch_stats"}."""
        return {"params": self.params, "batch_stats": self.batch_stats}


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised: cross entropy + penalty x time steps; and when the scores may move.

    Attributes:
      label_smoothing: in [0, 1].
      time_step_penalty: weight of the time steps, relative to T.
      target_time_steps: average to end at, a budget; None to let the penalty alone decide.
      min_time_steps: steps every layer keeps.
      start_step: training step from which the scores learn.
      anneal_steps: over so many steps from there on, the budget comes down from T to the target.
      freeze_step: training step from which they stay as they are; None for never.
      patience_steps: how fast the penalty grows while the budget is exceeded.
      estimator: straight-through estimator of the penalty's gradient.
    """

    label_smoothing: float = 0.0
    time_step_penalty: float = 0.0
    target_time_steps: float | None = None
    min_time_steps: int = 1
    start_step: int = 0
    anneal_steps: int = 0
    freeze_step: int | None = None
    patience_steps: int = 100
    estimator: str = "identity"

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
            return state.penalty_weight
        excess = timesteps.average_time_steps(state.params) - budget
        change = self.time_step_penalty * excess / self.patience_steps
        learning = self.scores_learn(state.step)
        return jnp.maximum(state.penalty_weight + jnp.where(learning, change, 0.0), 0.0)

    def scores_learn(self, step):
        """Returns whether the update after `step` steps may move the scores."""
        started = step >= self.start_step
        return started if self.freeze_step is None else started & (step < self.freeze_step)


def create_state(model, optimizer, objective, key, image_shape):
    """Returns the state before the first step.

    Args:
      model: a Linen module.
      optimizer: an optax transformation.
      objective: an `Objective`.
      key: typed PRNG key of the initial values.
      image_shape: (H, W, C) of one image.
    """
    variables = model.init(key, jnp.zeros((1, *image_shape)))
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(params),
        penalty_weight=jnp.float32(
            objective.time_step_penalty if objective.target_time_steps is None else 0
        ),
    )


def cross_entropy(logits, labels, label_smoothing=0.0):
    """Returns the cross entropy of each example, [B] float32.

    Args:
      logits: [B, K].
      labels: [B], whole numbers in [0, K).
      label_smoothing: share of the probability spread evenly over all classes, in [0, 1].
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))


def loss_fn(params, state, batch, model, objective):
    """Returns the objective on a batch, and what is worth keeping of its computation.

    Args:
      params: of the model.
      state: the `TrainState`; everything but its parameters is read from it.
      batch: see the module; all of its examples count.
      model: a Linen module.
      objective: an `Objective`.

    Returns:
      (loss, (new batch_stats, metrics)).
    """
    logits, new = model.apply(
        {"params": params, "batch_stats": state.batch_stats},
        batch["image"],
        train=True,
        mutable=["batch_stats"],
    )
    losses = cross_entropy(logits, batch["label"], objective.label_smoothing)
    penalty = timesteps.time_step_penalty(
        params, objective.budget(state.step, model.config.time_steps), objective.estimator
    )
    metrics = {
        "loss": (jnp.sum(losses), losses.size),
        "accuracy": (jnp.sum(jnp.argmax(logits, -1) == batch["label"]), losses.size),
        "time_step_penalty": (penalty, 1),
        "average_time_steps": (timesteps.average_time_steps(params), 1),
    }
    loss = jnp.mean(losses) + state.penalty_weight * penalty
    return loss, (new["batch_stats"], metrics)


@functools.partial(jax.jit, static_argnames=("model", "optimizer", "objective"), donate_argnums=0)
def train_step(state, batch, *, model, optimizer, objective):
    """Takes one optimiser step.

    Args:
      state: a `TrainState`; its buffers are donated, so it must not be used afterwards.
      batch: see the module.
      model: a Linen module.
      optimizer: an optax transformation.
      objective: an `Objective`.

    Returns:
      (new state, metrics as (sum, count)).
    """
    gradients, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(
        state.params, state, batch, model, objective
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    params = _settle_scores(state.params, params, state.step, objective)
    weight = objective.next_penalty_weight(state, model.config.time_steps)
    return TrainState(state.step + 1, params, batch_stats, opt_state, weight), metrics


def _settle_scores(old_params, params, step, objective):
    """Projects the updated scores while they learn, and takes their update back otherwise."""
    old = timesteps.scores(old_params)
    projected = timesteps.project_scores(
        params, objective.min_time_steps, objective.target_time_steps
    )
    new = timesteps.scores(projected)
    learning = objective.scores_learn(step)
    return timesteps.replace_scores(
        params, {name: jnp.where(learning, new[name], old[name]) for name in new}
    )


@functools.partial(jax.jit, static_argnames=("model",))
def eval_step(variables, batch, *, model):
    """Evaluates a batch in inference mode.

    Args:
      variables: {"params", "batch_stats"} of the model.
      batch: see the module; examples whose mask is False do not count.
      model: a Linen module.

    Returns:
      A dictionary of
        metrics: loss and accuracy as (sum, count);
        confusion: [K, K] counts of examples by (label, prediction);
        operations: counts of `energy.observe`, to be read with `energy.decode`.
    """
    logits, operations = energy.observe(model, variables, batch["image"], mask=batch["mask"])
    mask = batch["mask"].astype(jnp.float32)
    predictions, count = jnp.argmax(logits, -1), jnp.sum(mask)
    losses = cross_entropy(logits, batch["label"])
    one_hot = functools.partial(jax.nn.one_hot, num_classes=logits.shape[-1])
    return {
        "metrics": {
            "loss": (jnp.sum(losses * mask), count),
            "accuracy": (jnp.sum((predictions == batch["label"]) * mask), count),
        },
        "confusion": one_hot(batch["label"]).T * mask @ one_hot(predictions),
        "operations": operations,
    }
