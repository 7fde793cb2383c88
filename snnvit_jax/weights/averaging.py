"""The mean of several trainings that began at the same weights: one network, as cheap as each.

Trainings from one start end in one basin of the loss, and the middle of where they end lies lower
than the ends (Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models
improves accuracy without increasing inference time", ICML 2022: the uniform soup).
"""

import numpy as np
from flax import traverse_util

from snnvit_jax.common.variables import check_finite
from snnvit_jax.time_steps import masks
from snnvit_jax.time_steps.schedule import TimeStepSchedule


def mean_variables(trainings):
    """Returns the mean of the variables of several trainings of one model.

    Weights and running statistics are averaged, in float64. Scores are those of the first: all must
    stand for the same schedule, since the mean of two schedules is none.

    Args:
      trainings: {name: {"params", "batch_stats"}}, at least two, of one model and from one start;
        the names are for errors.

    Returns:
      {"params", "batch_stats"}, NumPy arrays typed like those of the first.

    Raises:
      ValueError: for fewer than two; or naming the training that is of another model, follows
        another schedule, or holds a value that is not finite.
    """
    if len(trainings) < 2:
        raise ValueError(f"a mean takes two trainings or more, got {list(trainings)}")
    for name, variables in trainings.items():
        check_finite(variables, f"the weights of {name}")
    flat = {n: traverse_util.flatten_dict(dict(v), sep="/") for n, v in trainings.items()}
    (first, own), *others = flat.items()
    for name, leaves in others:
        _check_same_model(first, own, name, leaves)
        _check_same_schedule(first, trainings[first], name, trainings[name])
    mean = {leaf: _mean(leaf, [leaves[leaf] for leaves in flat.values()]) for leaf in own}
    return traverse_util.unflatten_dict(mean, sep="/")


def _mean(name, leaves):
    first = np.asarray(leaves[0])
    if name.endswith("/" + masks.SCORE):
        return first
    return np.mean([np.asarray(leaf, np.float64) for leaf in leaves], 0).astype(first.dtype)


def _check_same_model(first, own, name, leaves):
    for leaf in sorted(own.keys() | leaves.keys()):
        shapes = [np.shape(x[leaf]) if leaf in x else "missing" for x in (own, leaves)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{name} is of another model than {first}: {leaf!r} is {shapes[1]}, not {shapes[0]}"
            )


def _check_same_schedule(first, own, name, variables):
    if not masks.scores(own["params"]):
        return  # without time steps to learn
    one, other = map(TimeStepSchedule.from_variables, (own, variables))
    for layer, mask in one.masks.items():
        if (mask != other.masks[layer]).any():
            raise ValueError(
                f"{name} follows another schedule than {first}: {layer!r} is active at "
                f"{_steps(other.masks[layer])}, not {_steps(mask)}; train them with the same masks "
                "(snn.with_schedule, --config.time_step_freeze=0.0)"
            )


def _steps(mask):
    return "".join("01"[int(step)] for step in mask)
