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

from snnvit_jax import recording, timesteps


class TrainState(flax.struct.PyTreeNode):
    """Everything that a training step changes.

    Attributes:
      step: optimiser steps done, int32 scalar.
      params: of the model, scores included, float32.
      batch_stats: running statistics of its normalisations, float32.
      opt_state: of the optimiser.
    """

    step: jax.Array
    params: dict
    batch_stats: dict
    opt_state: optax.OptState

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
      target_time_steps: average that is free of charge and a floor; None for neither.
      min_time_steps: steps every layer keeps.
      start_step: training step from which the scores learn.
      freeze_step: training step from which they stay as they are; None for never.
      estimator: straight-through estimator of the penalty's gradient.
    """

    label_smoothing: float = 0.0
    time_step_penalty: float = 0.0
    target_time_steps: float | None = None
    min_time_steps: int = 1
    start_step: int = 0
    freeze_step: int | None = None
    estimator: str = "identity"

    def scores_learn(self, step):
        """Returns whether the update after `step` steps may move the scores."""
        started = step >= self.start_step
        return started if self.freeze_step is None else started & (step < self.freeze_step)


def create_state(model, optimizer, key, image_shape):
    """Returns the state before the first step.

    Args:
      model: a Linen module.
      optimizer: an optax transformation.
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


def loss_fn(params, batch_stats, batch, model, objective):
    """Returns the objective on a batch, and what is worth keeping of its computation.

    Args:
      params: of the model.
      batch_stats: of the model.
      batch: see the module; all of its examples count.
      model: a Linen module.
      objective: an `Objective`.

    Returns:
      (loss, (new batch_stats, metrics)).
    """
    logits, new = model.apply(
        {"params": params, "batch_stats": batch_stats},
        batch["image"],
        train=True,
        mutable=["batch_stats"],
    )
    losses = cross_entropy(logits, batch["label"], objective.label_smoothing)
    penalty = timesteps.time_step_penalty(params, objective.target_time_steps, objective.estimator)
    metrics = {
        "loss": (jnp.sum(losses), losses.size),
        "accuracy": (jnp.sum(jnp.argmax(logits, -1) == batch["label"]), losses.size),
        "time_step_penalty": (penalty, 1),
        "average_time_steps": (timesteps.average_time_steps(params), 1),
    }
    loss = jnp.mean(losses) + objective.time_step_penalty * penalty
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
        state.params, state.batch_stats, batch, model, objective
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = _settle_scores(
        state.params, optax.apply_updates(state.params, updates), state.step, objective
    )
    new_state = TrainState(state.step + 1, params, batch_stats, opt_state)
    return new_state, metrics


def _settle_scores(old_params, params, step, objective):
    """Projects the updated scores while they learn, and takes their update back otherwise."""
    projected = timesteps.project_scores(
        params, objective.min_time_steps, objective.target_time_steps
    )
    learning, old = objective.scores_learn(step), timesteps.scores(old_params)
    new = timesteps.scores(projected)
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
      (metrics, confusion, rates): metrics as (sum, count); confusion [K, K] counts examples by
      (label, prediction); rates {layer name: (sum over examples of their firing rate [T], count)}.
    """
    logits, seen = model.apply(variables, batch["image"], mutable=[recording.COLLECTION])
    mask = batch["mask"].astype(jnp.float32)
    predictions, count = jnp.argmax(logits, -1), jnp.sum(mask)
    metrics = {
        "loss": (jnp.sum(cross_entropy(logits, batch["label"]) * mask), count),
        "accuracy": (jnp.sum((predictions == batch["label"]) * mask), count),
    }
    one_hot = functools.partial(jax.nn.one_hot, num_classes=logits.shape[-1])
    confusion = jnp.einsum(
        "bi,bj->ij", one_hot(batch["label"]) * mask[:, None], one_hot(predictions)
    )
    rates = {
        name: (firing_rate(spikes) @ mask, count) for name, spikes in recording.spikes(seen).items()
    }
    return metrics, confusion, rates


def firing_rate(spikes):
    """Returns the share of a layer's neurons that fire, per time step and example.

    Args:
      spikes: [T, B, ...] in {0, 1}.

    Returns:
      [T, B] float32 in [0, 1].
    """
    return jnp.mean(spikes, axis=tuple(range(2, spikes.ndim)), dtype=jnp.float32)
