"""Learning how many time steps a layer needs: score -> mask -> penalty -> projection.

Every LIF layer owns a score per time step. A step whose score is positive is active (mask 1); at
any other the layer emits nothing (mask 0). The step function has no gradient, so a straight-through
estimator stands in for it (Datta et al., "Spiking Neural Networks with Dynamic Time Steps for
Vision Transformers", arXiv 2311.16456; Bengio et al., arXiv 1308.3432).

What learns them from outside a layer takes the whole parameter tree and touches only its scores.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from snnvit_jax.common import values
from snnvit_jax.common.nearest import did_you_mean
from snnvit_jax.xla.reductions import spread

SCORE = "time_step_score"
INITIAL_SCORE = 0.5
# How far from the threshold 0 the projection puts a score that must lie on one side of it: so close
# that the loss can still exchange the step for a better one.
LIFTED_SCORE = 0.01


def initial_scores(time_steps):
    """Returns the scores that a layer starts with, [T] float32: every step active.

    Args:
      time_steps: T, >= 1.
    """
    return jnp.full((time_steps,), INITIAL_SCORE, jnp.float32)


def _sigmoid(score):
    s = jax.nn.sigmoid(4 * score)
    return 4 * s * (1 - s)


class Estimator(NamedTuple):
    """A straight-through estimator of the mask.

    Attributes:
      derivative: function of the score, elementwise: what stands for d mask / d score.
      reach: how far from 0 a score may lie and still be moved by that, > 0; `project_scores` lets
        no score go further.
    """

    derivative: Callable
    reach: float = 1.0


# One line adds an estimator.
ESTIMATORS = {
    "identity": Estimator(jnp.ones_like),
    "clipped": Estimator(lambda score: (jnp.abs(score) <= 0.5).astype(score.dtype), reach=0.5),
    "triangle": Estimator(lambda score: jnp.maximum(1 - jnp.abs(score), 0), reach=0.9),
    "sigmoid": Estimator(_sigmoid),
}


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def binary_mask(score, estimator="identity"):
    """Returns the mask of each score, 1 where score > 0 else 0; differentiates by the estimator.

    Args:
      score: any shape, floating point, usually in [-1, 1].
      estimator: a key of `ESTIMATORS`: d mask / d score is 1 ("identity"), 1 for |score| <= 1/2
        ("clipped"), max(0, 1 - |score|) ("triangle") or the logistic bump of unit height.

    Returns:
      The mask in {0, 1}, shaped and typed like `score`.

    Raises:
      ValueError: for an unknown estimator.
    """
    _check_estimator(estimator)
    return (score > 0).astype(score.dtype)


def _check_estimator(estimator):
    if estimator not in ESTIMATORS:
        hint = did_you_mean(estimator, ESTIMATORS)
        raise ValueError(f"unknown {estimator=}{hint}; use one of {', '.join(ESTIMATORS)}")


@binary_mask.defjvp
def _binary_mask_jvp(estimator, primals, tangents):
    (score,), (dscore,) = primals, tangents
    return binary_mask(score, estimator), ESTIMATORS[estimator].derivative(score) * dscore


def mask_spikes(spikes, score, estimator="identity", axis=0):
    """Filters spikes by the mask of their time step: s[t] = m[t] * o[t].

    Args:
      spikes: [T, ...] as fired; another axis than the first may be time.
      score: [T].
      estimator: a key of `ESTIMATORS`.
      axis: of time; a negative one counts from the end.

    Returns:
      The emitted spikes, shaped and typed like `spikes`.

    Raises:
      ValueError: for an unknown estimator, or an axis that the spikes do not have.
    """
    axis = np.lib.array_utils.normalize_axis_index(axis, spikes.ndim)
    mask = binary_mask(score, estimator)
    return spikes * spread(mask.reshape(-1, *[1] * (spikes.ndim - axis - 1)), spikes)


def scores(params):
    """Returns {layer name: score [T]} of a parameter tree, in the tree's order.

    Args:
      params: the "params" of a model.

    Raises:
      ValueError: if there is none, so that the model cannot learn time steps.
    """
    flat = traverse_util.flatten_dict(params)
    found = {"/".join(path[:-1]): leaf for path, leaf in flat.items() if path[-1] == SCORE}
    if not found:
        raise ValueError(f"these parameters hold no {SCORE!r}: {sorted(params)}")
    return found


def replace_scores(params, new_scores):
    """Returns the parameter tree with other scores.

    Args:
      params: the "params" of a model.
      new_scores: {layer name: score [T]} for every LIF layer.
    """
    flat = traverse_util.flatten_dict(params)
    new = {(*name.split("/"), SCORE): score for name, score in new_scores.items()}
    return traverse_util.unflatten_dict({path: new.get(path, leaf) for path, leaf in flat.items()})


def average_time_steps(params, estimator="identity"):
    """Returns the model's time steps: mean over LIF layers of the number of active steps.

    Args:
      params: the "params" of a model.
      estimator: a key of `ESTIMATORS`; its gradient reaches the scores.

    Returns:
      A float32 scalar in [0, T].
    """
    stacked = jnp.stack(list(scores(params).values()))  # L T
    return jnp.sum(binary_mask(stacked, estimator)) / stacked.shape[0]


def time_step_penalty(params, target=None, estimator="identity"):
    """Returns what the objective charges for time steps, relative to T.

    average / T without a target, max(average - target, 0) / T with one.

    Args:
      params: the "params" of a model.
      target: average number of time steps that is free of charge, a number or a traced scalar in
        [0, T]; None for 0.
      estimator: a key of `ESTIMATORS`; its gradient reaches the scores.

    Returns:
      A float32 scalar in [0, 1].
    """
    T = next(iter(scores(params).values())).shape[0]
    average = average_time_steps(params, estimator)
    return jax.nn.relu(average - (0.0 if target is None else target)) / T


# Which layers have one schedule: each its own, or all of a module ("block_0/attn") the same.
GROUPS = ("layer", "module")


def module_of(name):
    """Returns the name of the module that a layer belongs to.

    Args:
      name: of the layer, for example "block_0/attn/q_lif".
    """
    return name.rpartition("/")[0] or name


def project_scores(params, min_time_steps=1, floor=None, estimator="identity", groups="layer"):
    """Brings the scores back into their allowed set after an update.

    Scores are clipped to the estimator's reach, so that none is stuck, and each layer's
    `min_time_steps` best-scored steps stay active. If the model would fall below `floor` on
    average, its best-scored steps up to there stay active too: all scores move until zero lies
    between the last step that is needed and the first that is not, which keeps their order. Among
    equal scores the earlier step is the better one.

    The layers of a group get the mean of their scores, and so the same steps. A group gives a step
    up as a whole; the model may then end below `floor`, by less than a step of its largest group.

    Args:
      params: the "params" of a model.
      min_time_steps: steps that every layer keeps, in [0, T].
      floor: average number of time steps in [min_time_steps, T], rounded down to a whole number of
        steps in all; a number or a traced scalar, or None for no floor.
      estimator: a key of `ESTIMATORS`.
      groups: one of `GROUPS`.

    Returns:
      The parameter tree with projected scores.

    Raises:
      ValueError: for an unknown estimator or other groups.
    """
    _check_estimator(estimator)
    values.one_of(GROUPS).check("groups", groups)
    old = scores(params)
    reach = ESTIMATORS[estimator].reach
    group, sizes = _grouped(list(old), groups)
    rows = jnp.clip(jnp.stack(list(old.values())), -reach, reach)  # L T
    if groups != "layer":
        rows = jnp.zeros((len(sizes), rows.shape[1])).at[group].add(rows) / sizes[:, None]  # G T
    kept = jax.vmap(_rank)(rows) < min_time_steps
    if floor is not None:
        count = jnp.floor(jnp.asarray(floor) * len(old) + 1e-4).astype(int)
        enough = jnp.sum(((rows > 0) | kept) * sizes[:, None]) > count - max(sizes)
        rows = jnp.where(enough, rows, _keep_at_most(rows, kept, count, sizes, reach))
    rows = jnp.where(kept, jnp.maximum(rows, LIFTED_SCORE), rows)
    return replace_scores(params, dict(zip(old, rows[group], strict=True)))


def _grouped(names, groups):
    """Returns (number of the group of each layer, how many layers each group has)."""
    found = names if groups == "layer" else [module_of(name) for name in names]
    number = {name: i for i, name in enumerate(dict.fromkeys(found))}
    group = np.array([number[name] for name in found])
    return group, np.bincount(group)


def _keep_at_most(rows, kept, count, sizes, reach):
    """Moves scores [G, T] so that the kept and the best others are active, at most `count` in all.

    A step of a group counts as often as the group has layers; the first that would be too many is
    left out, and all worse ones.
    """
    # Step-major order, so that ties go to the earlier step rather than to the earlier layer.
    free = jnp.where(kept, -jnp.inf, rows).T.reshape(-1)
    order = jnp.argsort(-free, stable=True)
    weights = jnp.broadcast_to(sizes, rows.T.shape).reshape(-1)
    free_count = count - jnp.sum(kept * sizes[:, None])
    fits = (jnp.cumsum(weights[order]) <= free_count) & jnp.isfinite(free[order])
    number = jnp.sum(fits)
    active = jnp.zeros_like(fits).at[order].set(fits).reshape(rows.T.shape).T | kept
    descending = jnp.concatenate([jnp.ones(1), free[order], -jnp.ones(1)])
    last_in, first_out = (jnp.clip(descending[number + i], -reach, reach) for i in (0, 1))
    shifted = jnp.clip(rows - (last_in + first_out) / 2, -reach, reach)
    return jnp.where(
        active, jnp.maximum(shifted, LIFTED_SCORE), jnp.minimum(shifted, -LIFTED_SCORE)
    )


def _rank(score):
    """Returns the place of each score in a vector, 0 for the highest; the first of equals wins."""
    order = jnp.argsort(-score, stable=True)
    return jnp.zeros_like(order).at[order].set(jnp.arange(score.size))


def check_time_steps(time_steps, *, minimum=1, target=None):
    """Raises ValueError for numbers of time steps that do not fit each other, naming them.

    Args:
      time_steps: T, the maximum; a whole number >= 1.
      minimum: steps every layer keeps, in [0, T].
      target: average to end at, in [minimum, T]; None for none.
    """
    values.whole(1).check("time_steps", time_steps)
    if not values.whole(0, time_steps).fits(minimum):
        raise ValueError(
            f"min_time_steps={minimum} must be a whole number between 0 and {time_steps=}"
        )
    target = values.scalar(target)
    if not values.optional(values.number(minimum, time_steps)).fits(target):
        raise ValueError(
            f"target_time_steps={target} must lie between min_time_steps={minimum} "
            f"and {time_steps=}"
        )
