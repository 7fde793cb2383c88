"""Stopping early: an image whose prediction is clear after a few time steps needs no more of them.

Every neuron is causal, so after step t the mean over the steps so far is known, and with it the
prediction that the model would give if it ended there. An image exits at the first step at which
that prediction is confident enough (Teerapittayanon et al., "BranchyNet", 2016, along time; Li et
al., "SEENN: Towards Temporal Spiking Early-Exit Neural Networks", NeurIPS 2023).
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from snnvit_jax.common.pixels import normalised
from snnvit_jax.common.variables import params_of
from snnvit_jax.layers import Head
from snnvit_jax.layers.head import token_mean
from snnvit_jax.models import family_of


def running_logits(model, variables, images):
    """Returns what the model would predict if it stopped after each time step.

        logits[t] = head(mean over the steps s <= t of the features at s)

    The last of them is what `model.apply` returns.

    Args:
      model: from `create_model`.
      variables: {"params", "batch_stats"} of the model; its time-step masks apply.
      images: [B, H, W, C], normalised, or recordings [B, T, H, W, C].

    Returns:
      [T, B, K] float32.

    Raises:
      ValueError: for what are no variables, a module of no known family or without a
        `layers.Head`, or neurons that are not causal: what they emit now depends on later steps.
    """
    family_of(model)  # that of a known family, or an error that says so
    params_of(variables)
    neuron = model.config.neuron
    if not neuron.causal:
        raise ValueError(
            f"no early exit with {type(neuron).__name__}: it is not causal, so that no time step "
            "is known before the last one"
        )
    found = []

    def see_head(call, args, kwargs, context):
        if isinstance(context.module, Head) and context.method_name == "__call__":
            found.append(_running(context.module, args[0]))
        return call(*args, **kwargs)

    with nn.intercept_methods(see_head):
        model.apply(variables, images)
    if not found:
        raise ValueError(
            f"no early exit of {type(model).__name__}: it calls no layers.Head, which takes the "
            "mean over the time steps; make that its classifier"
        )
    return found[0]


def running_logits_of(model, variables, batches, normalization=None):
    """Returns the running logits of a whole split, and its labels, without gaps.

    Args:
      model: from `create_model`.
      variables: {"params", "batch_stats"} of the model.
      batches: mappings with "image", "label" and "mask", as `data.loader.eval_batches` has them.
      normalization: of images that come as whole numbers; None if they come normalised.

    Returns:
      (logits [T, N, classes], labels [N]), NumPy arrays, in the order of the batches.
    """
    function = jax.jit(lambda v, x: running_logits(model, v, normalised(x, normalization)))
    logits, labels = [], []
    for batch in batches:
        logits.append(np.asarray(function(variables, batch["image"]))[:, batch["mask"]])
        labels.append(batch["label"][batch["mask"]])
    return np.concatenate(logits, axis=1), np.concatenate(labels)


def _running(head, x):
    """What a bound head says of the steps of its signal so far, [T, B, K]."""
    features = jnp.moveaxis(token_mean(x.values), 1, 0)  # T B D
    count = jnp.arange(1, len(features) + 1, dtype=features.dtype)
    mean_so_far = jnp.cumsum(features, axis=0) / count[:, None, None]
    weights = head.variables["params"]
    logits = mean_so_far @ weights["kernel"]
    return logits + weights["bias"] if "bias" in weights else logits


def confidence(logits):
    """Returns the largest probability of each prediction, in [1/K, 1].

    Args:
      logits: [..., K].
    """
    return np.max(_probabilities(logits), axis=-1)


def entropy(logits):
    """Returns the entropy of each prediction in nats, in [0, log K].

    Args:
      logits: [..., K].
    """
    p = _probabilities(logits)
    return -np.sum(p * np.log(np.maximum(p, np.finfo(p.dtype).tiny)), axis=-1)


# criterion -> whether a prediction is clear enough, given its logits [..., K] and a threshold
CRITERIA = {
    "confidence": lambda logits, threshold: confidence(logits) >= threshold,
    "entropy": lambda logits, threshold: entropy(logits) <= threshold,
}


def exit_steps(logits, threshold, criterion="confidence"):
    """Returns after how many time steps each image exits, [B] in 1..T.

    Args:
      logits: [T, B, K] from `running_logits`.
      threshold: an image exits once the largest probability is at least this ("confidence"), or
        the entropy in nats at most this ("entropy"); at step T at the latest.
      criterion: a key of `CRITERIA`.

    Raises:
      ValueError: for an unknown criterion or logits of another shape.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"unknown {criterion=}; use one of {', '.join(CRITERIA)}")
    if np.ndim(logits) != 3 or not np.shape(logits)[0]:
        raise ValueError(f"logits must be [T, B, K], got shape {np.shape(logits)}")
    clear = CRITERIA[criterion](logits, threshold)
    clear[-1] = True
    return 1 + np.argmax(clear, axis=0)


class Sweep(NamedTuple):
    """Accuracy against time steps, one entry for each threshold.

    Attributes:
      thresholds: [n].
      accuracy: [n], in [0, 1].
      average_time_steps: [n].
    """

    thresholds: np.ndarray
    accuracy: np.ndarray
    average_time_steps: np.ndarray


def sweep(logits, labels, thresholds, criterion="confidence", spent=None):
    """Returns accuracy and average time steps at many thresholds.

    Args:
      logits: [T, B, K] from `running_logits`, of as many images as there are.
      labels: [B], whole numbers in [0, K).
      thresholds: [n], see `exit_steps`.
      criterion: a key of `CRITERIA`.
      spent: [T], time steps that an image has cost when it exits after step 1, ..., T; None for
        exactly these. With a schedule it is `steps_spent(schedule)`. Of recordings, whose steps are
        of different lengths in real time, [T, B]: then the averages are those of that time.

    Returns:
      A `Sweep`.

    Raises:
      ValueError: for an unknown criterion, or shapes that do not fit each other.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    spent = np.arange(1, len(logits) + 1) if spent is None else np.asarray(spent)
    if labels.shape != logits.shape[1:2] or spent.shape not in (logits.shape[:1], logits.shape[:2]):
        raise ValueError(
            f"labels {labels.shape} and spent {spent.shape} do not fit logits {logits.shape}"
        )
    right = np.argmax(logits, axis=-1) == labels  # T B
    spent = np.broadcast_to(spent if spent.ndim == 2 else spent[:, None], right.shape)
    each = np.arange(labels.size)
    exits = [exit_steps(logits, threshold, criterion) - 1 for threshold in thresholds]
    return Sweep(
        np.asarray(thresholds, np.float64),
        np.array([np.mean(right[step, each]) for step in exits]),
        np.array([np.mean(spent[step, each]) for step in exits]),
    )


def steps_spent(schedule):
    """Returns the time steps of an average layer until each step, [T].

    The last is `schedule.average`: what an image costs that exits nowhere.

    Args:
      schedule: a `TimeStepSchedule`.
    """
    return np.cumsum(np.mean(list(schedule.masks.values()), axis=0))


def _probabilities(logits):
    return np.asarray(jax.nn.softmax(jnp.asarray(logits, jnp.float32), axis=-1))
