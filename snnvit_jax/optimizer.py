"""The optimiser: AdamW with warm-up and cosine, and which parameters it treats apart."""

import jax
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
    """Returns AdamW that decays only matrices and kernels and moves scores at their own rate.

    Biases, normalisation parameters, scores and learned time constants have fewer than two axes:
    none of them is decayed, as in the published recipes.

    Args:
      settings: `config.optimizer`.
      learning_rate: number or function of the step.
    """
    return optax.chain(
        optax.adamw(learning_rate, weight_decay=settings.weight_decay, mask=_is_decayed),
        optax.masked(optax.scale(settings.score_multiplier), _is_score),
    )


def _is_decayed(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _is_score(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == timesteps.SCORE, params)
