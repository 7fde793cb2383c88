"""The optimiser: AdamW or LAMB, its learning rate, and which parameters it treats apart."""

import re

import jax
import jax.numpy as jnp
import optax

from snnvit_jax.time_steps import masks


def learning_rate_schedule(settings, epochs, steps_per_epoch):
    """Returns the learning rate as a function of the step: linear warm-up, then a cosine.

    Args:
      settings: `config.optimizer`; its durations are epochs, its `schedule` is
        "cosine" (the cosine starts after the warm-up; every step has its own rate) or
        "epoch_cosine" (that of the published Spikformer recipes: see `epoch_cosine`).
      epochs: of the whole training, cool-down included.
      steps_per_epoch: optimiser steps in one of them; may be a fraction.

    Raises:
      ValueError: if warm-up and cool-down leave nothing of the training.
    """
    cosine_epochs = epochs - settings.cooldown_epochs
    if settings.warmup_epochs >= cosine_epochs:
        raise ValueError(
            f"warmup_epochs={settings.warmup_epochs} must be fewer than {epochs=} "
            f"without cooldown_epochs={settings.cooldown_epochs}"
        )
    if settings.schedule == "epoch_cosine":
        return lambda step: epoch_cosine(step // steps_per_epoch, cosine_epochs, settings)
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    return optax.warmup_cosine_decay_schedule(
        settings.warmup_learning_rate if warmup else settings.learning_rate,
        settings.learning_rate,
        warmup,
        round(cosine_epochs * steps_per_epoch),
        settings.min_learning_rate,
    )


def epoch_cosine(epoch, cosine_epochs, settings):
    """Returns the learning rate of an epoch in the published Spikformer recipes.

    Linear from the warm-up's rate; from `warmup_epochs` on a cosine over all epochs, which has
    begun at epoch 0 already; the lowest rate after `cosine_epochs`.

    Args:
      epoch: whole number >= 0, may be traced.
      cosine_epochs: epochs without the cool-down.
      settings: `config.optimizer`.
    """
    low, high = settings.min_learning_rate, settings.learning_rate
    start, warmup = settings.warmup_learning_rate, settings.warmup_epochs
    rising = start + (high - start) * epoch / max(warmup, 1)
    falling = low + (high - low) / 2 * (1 + jnp.cos(jnp.pi * epoch / cosine_epochs))
    rate = jnp.where(epoch < warmup, rising, falling)
    return jnp.where(epoch >= cosine_epochs, low, rate)


def create_optimizer(settings, learning_rate, trainable="all"):
    """Returns the optimiser, which decays only matrices and kernels.

    Biases, normalisation parameters, scores and learned time constants have fewer than two axes:
    none of them is decayed, as in the published recipes.

    Args:
      settings: `config.optimizer`; `multipliers` scale the updates of parameters whose name
        ("block_0/attn/q_linear/kernel") matches a pattern, the first that does.
      learning_rate: number or function of the step.
      trainable: "all", or "scores" to leave everything else as it is.

    Raises:
      ValueError: for a pattern that is not a regular expression.
    """
    create = {"adamw": optax.adamw, "lamb": optax.lamb}[settings.name]
    parts = [
        create(learning_rate, weight_decay=settings.weight_decay, mask=_is_decayed),
        optax.masked(optax.scale(settings.score_multiplier), _is_score),
    ]
    if settings.multipliers:
        parts.append(scale_by_name(settings.multipliers))
    if settings.clip_norm is not None:
        parts.insert(0, optax.clip_by_global_norm(settings.clip_norm))
    if trainable == "scores":
        parts.append(optax.masked(optax.set_to_zero(), _is_no_score))
    return optax.chain(*parts)


def scale_by_name(multipliers):
    """Returns a transformation that scales updates by the first pattern that matches their name.

    Args:
      multipliers: ((regular expression, factor), ...), searched for in names such as
        "block_0/attn/q_linear/kernel".

    Raises:
      ValueError: for a pattern that is not a regular expression.
    """
    try:
        compiled = [(re.compile(pattern), factor) for pattern, factor in multipliers]
    except (re.error, TypeError, ValueError) as error:
        raise ValueError(f"optimizer.multipliers={multipliers}: {error}") from error

    def factor_of(path):
        name = "/".join(part.key for part in path)
        return next((factor for pattern, factor in compiled if pattern.search(name)), 1.0)

    return optax.stateless(
        lambda updates, _: jax.tree_util.tree_map_with_path(
            lambda path, update: update * factor_of(path), updates
        )
    )


def _is_decayed(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _is_score(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == masks.SCORE, params)


def _is_no_score(params):
    return jax.tree.map(lambda is_score: not is_score, _is_score(params))
