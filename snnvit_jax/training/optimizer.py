"""The optimiser: AdamW or LAMB, its learning rate, and which parameters it treats apart."""

import math
import re

import jax
import jax.numpy as jnp
import optax

from snnvit_jax.time_steps import masks
from snnvit_jax.training.lengths import described, in_epochs

_ADAM = 1  # its place in the chain
_EPSILON = {"adamw": 1e-8, "lamb": 1e-6}  # below the fraction of Adam's averages
OPTIMIZERS = tuple(_EPSILON)


def learning_rate_schedule(settings, epochs, steps_per_epoch, start_step=0):
    """Returns the learning rate as a function of the step: linear warm-up, then a cosine.

    After the end of the schedule it stays at its last value.

    Args:
      settings: `config.optimizer`; its `warmup` and `cooldown` are shares of `epochs`, its
        `schedule` is "cosine" (the cosine starts after the warm-up; every step has its own rate) or
        "epoch_cosine" (that of the recipes of Zhou et al., ICLR 2023: see `epoch_cosine`).
      epochs: of the whole schedule, cool-down included; may be a fraction.
      steps_per_epoch: optimiser steps in one of them; may be a fraction.
      start_step: training step at which the schedule begins.

    Raises:
      ValueError: if warm-up and cool-down leave nothing of the schedule.
    """
    warmup, cooldown = (in_epochs(settings, name, epochs) for name in ("warmup", "cooldown"))
    if warmup >= epochs - cooldown:
        raise ValueError(
            f"optimizer.{described(settings, 'warmup', epochs)} must be fewer than {epochs=} "
            f"without optimizer.{described(settings, 'cooldown', epochs)}"
        )
    rate = _SCHEDULES[settings.schedule](settings, warmup, epochs - cooldown, steps_per_epoch)
    return (lambda step: rate(jnp.maximum(step - start_step, 0))) if start_step else rate


def _step_cosine(settings, warmup, cosine_epochs, steps_per_epoch):
    end = max(1, round(cosine_epochs * steps_per_epoch))
    rise = min(end - 1, round(warmup * steps_per_epoch))
    return optax.warmup_cosine_decay_schedule(
        settings.warmup_learning_rate if rise else settings.learning_rate,
        settings.learning_rate,
        rise,
        end,
        settings.min_learning_rate,
    )


def _epoch_cosine(settings, warmup, cosine_epochs, steps_per_epoch):
    return lambda step: epoch_cosine(step // steps_per_epoch, warmup, cosine_epochs, settings)


_SCHEDULES = {"cosine": _step_cosine, "epoch_cosine": _epoch_cosine}
SCHEDULES = tuple(_SCHEDULES)


def epoch_cosine(epoch, warmup, cosine_epochs, settings):
    """Returns the learning rate of an epoch in the recipes of Zhou et al., ICLR 2023.

    Linear from the warm-up's rate; after the warm-up a cosine over all epochs, which has begun at
    epoch 0 already; the lowest rate after `cosine_epochs`.

    Args:
      epoch: whole number >= 0, may be traced.
      warmup: epochs of the warm-up.
      cosine_epochs: epochs without the cool-down.
      settings: `config.optimizer`.
    """
    low, high = settings.min_learning_rate, settings.learning_rate
    start = settings.warmup_learning_rate
    rising = start + (high - start) * epoch / max(warmup, 1)
    falling = low + (high - low) / 2 * (1 + jnp.cos(jnp.pi * epoch / cosine_epochs))
    rate = jnp.where(epoch < warmup, rising, falling)
    return jnp.where(epoch >= cosine_epochs, low, rate)


def create_optimizer(settings, learning_rate, trainable="all"):
    """Returns the optimiser, which decays only matrices and kernels.

    Biases, normalisation parameters, scores and learned time constants have fewer than two axes:
    none of them is decayed, as in the published recipes.

    The structure of its state is the same for all settings, so that a run can be continued with
    others. The state holds no clock for the learning rate, which `update` takes from its argument
    `step`, the number of training steps done; without it, the updates made count. (The count in the
    state is that of Adam's averages, which a step taken back does not enter.) Nor does it depend on
    when the scores learn: while the argument `scores_learn` is false, their gradient takes no part
    in the norm that the others are clipped by. It enters their own averages, clipped by its own
    norm: without them their first updates would be several times too large.

    Args:
      settings: `config.optimizer`; `multipliers` scale the updates of parameters whose name
        ("block_0/attn/q_linear/kernel") matches a pattern, the first that does.
      learning_rate: number or function of the step.
      trainable: "all", or "scores" to leave everything else as it is.

    Raises:
      ValueError: for a pattern that is not a regular expression, or a factor that is no number.
    """
    rate_at = learning_rate if callable(learning_rate) else optax.constant_schedule(learning_rate)
    factor_of = _update_factors(settings, trainable)
    direction = optax.with_extra_args_support(_update_direction(settings))

    def update(gradients, state, params=None, *, step=None, scores_learn=True, **_):
        step = state[_ADAM].count if step is None else step
        moved = jax.tree_util.tree_map_with_path(  # what stays takes no part in the norm
            lambda path, g: _scaled(g, float(bool(factor_of(path)))), gradients
        )
        updates, state = direction.update(moved, state, params, scores_learn=scores_learn)
        rate = rate_at(step)
        return jax.tree_util.tree_map_with_path(
            lambda path, u: _scaled(-rate * u, factor_of(path)), updates
        ), state

    return optax.GradientTransformationExtraArgs(direction.init, update)


def _update_direction(settings):
    """The update at a learning rate of -1; what is switched off leaves its place in the chain."""
    clip, is_lamb = settings.clip_norm, settings.name == "lamb"
    # `identity` has the same empty state as what it stands for.
    return optax.chain(
        optax.identity() if clip is None else _by_global_norm(clip),
        optax.scale_by_adam(eps=_EPSILON[settings.name]),
        optax.add_decayed_weights(settings.weight_decay, mask=_is_decayed),
        _by_trust_ratio(settings.trust_clip) if is_lamb else optax.identity(),
    )


def _by_global_norm(limit):
    """Clips what learns by its norm; scores that do not learn at present, by their own."""
    clip = optax.clip_by_global_norm(limit)

    def update(gradients, state, params=None, *, scores_learn=True, **_):
        if scores_learn is True:
            return clip.update(gradients, state)
        scores = masks.scores(gradients)
        alone, _ = clip.update(scores, state)
        still = {name: jnp.where(scores_learn, score, 0) for name, score in scores.items()}
        clipped, state = clip.update(masks.replace_scores(gradients, still), state)
        together = masks.scores(clipped)
        new = {name: jnp.where(scores_learn, together[name], alone[name]) for name in scores}
        return masks.replace_scores(clipped, new), state

    return optax.GradientTransformationExtraArgs(clip.init, update)


def _by_trust_ratio(clip):
    """LAMB's layer-wise scale, norm of a weight over norm of its update, where weights are decayed.

    You et al., "Large Batch Optimization for Deep Learning", ICLR 2020, algorithm 2; what is not
    decayed has no ratio in the scripts that published recipes run. `clip` keeps it below 1.
    """

    def scaled(update, param):
        if param.ndim < 2:
            return update
        size, wanted = jnp.linalg.norm(update), jnp.linalg.norm(param)
        ratio = jnp.where((size > 0) & (wanted > 0), wanted / jnp.where(size > 0, size, 1), 1)
        return update * (jnp.minimum(ratio, 1) if clip else ratio)

    return optax.stateless(lambda updates, params: jax.tree.map(scaled, updates, params))


def _update_factors(settings, trainable):
    """Returns the factor of a parameter's update as a function of its path."""
    patterns = _compiled(settings.multipliers)

    def factor_of(path):
        is_score = path[-1].key == masks.SCORE
        if trainable == "scores" and not is_score:
            return 0.0
        name = "/".join(part.key for part in path)
        factor = next((factor for pattern, factor in patterns if pattern.search(name)), 1.0)
        return factor * settings.score_multiplier if is_score else factor

    return factor_of


def _compiled(multipliers):
    try:
        found = [(re.compile(pattern), float(factor)) for pattern, factor in multipliers]
    except (re.error, TypeError, ValueError) as error:
        raise ValueError(
            f"optimizer.multipliers={multipliers!r} must be pairs of a regular expression and a "
            f"number: {error}"
        ) from error
    if not all(math.isfinite(factor) for _, factor in found):
        raise ValueError(f"optimizer.multipliers={multipliers!r}: a factor is not finite")
    return found


def _scaled(update, factor):
    if factor == 1.0:
        return update
    return update * factor if factor else jnp.zeros_like(update)


def _is_decayed(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
