"""The optimiser: AdamW with warm-up and cosine, and which parameters it treats apart."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from snnvit_jax import timesteps


def learning_rate_schedule(settings, epochs, steps_per_epoch):
    """Returns the learning rate as a function of the step: linear warm-up, then a cosine.

    Args:
      settings: `config.optimizer`; its durations are epochs.
      epochs: of the whole training.
      steps_per_epoch: optimiser steps in one of them.

    Raises:
      ValueError: if the warm-up is longer than the training.
    """
    total = round(epochs * steps_per_epoch)
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    if warmup >= total:
        raise ValueError(f"warmup_epochs={settings.warmup_epochs} must be fewer than {epochs=}")
    return optax.warmup_cosine_decay_schedule(
        settings.warmup_learning_rate if warmup else settings.learning_rate,
        settings.learning_rate,
        warmup,
        total,
        settings.min_learning_rate,
    )


def create_optimizer(settings, learning_rate):
    """Returns AdamW for the weights and a method of their own for the time-step scores.

    AdamW decays only matrices and kernels: biases, normalisation parameters and learned time
    constants have fewer than two axes and are not decayed, as in the published recipes.

    Scores compete with each other, so their updates must stay in proportion to their gradients,
    which Adam would level out: their gradients are averaged and divided by one common root mean
    square. (The gradient of a mask is, to first order, the loss that removing its step would cost.)

    Args:
      settings: `config.optimizer`.
      learning_rate: function of the step.
    """
    weights = optax.adamw(
        learning_rate,
        weight_decay=settings.weight_decay,
        mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
    )
    scores = optax.chain(
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(lambda step: settings.score_multiplier * learning_rate(step)),
    )
    return optax.partition({"weight": weights, "score": scores}, _labels)


def scale_by_common_rms(decay=0.999, epsilon=1e-12):
    """Divides all updates by the running root mean square over all of their elements.

    Args:
      decay: of the running mean of squares, in [0, 1).
      epsilon: added to the root, > 0.

    Returns:
      An optax transformation.
    """

    def init(_):
        return CommonRmsState(jnp.zeros((), jnp.int32), jnp.zeros(()))

    def update(updates, state, params=None):
        del params
        leaves = jax.tree.leaves(updates)
        square = sum(jnp.sum(jnp.square(u)) for u in leaves) / sum(u.size for u in leaves)
        count = state.count + 1
        mean_square = decay * state.mean_square + (1 - decay) * square
        rms = jnp.sqrt(mean_square / (1 - decay**count)) + epsilon
        return jax.tree.map(lambda u: u / rms, updates), CommonRmsState(count, mean_square)

    return optax.GradientTransformation(init, update)


class CommonRmsState(NamedTuple):
    """State of `scale_by_common_rms`: updates seen, and their running mean square."""

    count: jax.Array
    mean_square: jax.Array


def _labels(params):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "score" if path[-1].key == timesteps.SCORE else "weight", params
    )
