"""TimeStepSchedule: at which time steps each layer of a model is active."""

import collections.abc
import dataclasses
import json
import pathlib
import warnings

import numpy as np
from flax import traverse_util

from snnvit_jax.common import files, values
from snnvit_jax.common.variables import params_of
from snnvit_jax.time_steps import masks


@dataclasses.dataclass(frozen=True, eq=False)
class TimeStepSchedule:
    """The time-step masks of a model, as plain NumPy arrays.

    Attributes:
      masks: {layer name: bool [T]}, the same T for every layer, in the order given (forward order
        where it matters for reading: see `from_variables`).

    Raises:
      ValueError: for no layers, a mask that is not a vector of 0 and 1, or unequal lengths.
    """

    masks: dict[str, np.ndarray]

    def __post_init__(self):
        if not isinstance(self.masks, collections.abc.Mapping):
            got = values.shown(self.masks)
            raise ValueError(f"masks={got} must be {{layer name: [0 or 1 for each time step]}}")
        if not self.masks:
            raise ValueError("a schedule needs at least one layer")
        object.__setattr__(self, "masks", {n: _as_mask(n, m) for n, m in self.masks.items()})
        lengths = {name: mask.size for name, mask in self.masks.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"every layer needs the same number of time steps, got {lengths}")

    def __eq__(self, other):
        """Two schedules are equal if they hold the same masks for the same layers."""
        return (
            isinstance(other, TimeStepSchedule)
            and self.masks.keys() == other.masks.keys()
            and all(np.array_equal(mask, other.masks[name]) for name, mask in self.masks.items())
        )

    @classmethod
    def from_variables(cls, variables, names=None):
        """Reads the masks that a model's scores stand for.

        Args:
          variables: {"params": ...} of a model.
          names: layer names in the order wanted, at least one, for example `layer_names(model)`;
            None keeps the order of the parameter tree, which `jax.jit` sorts by name.

        Raises:
          ValueError: for what are no variables, parameters without scores, no names, or a name that
            no layer with a score has.
        """
        scores = masks.scores(params_of(variables))
        names = list(scores if names is None else names)
        if unknown := [name for name in names if name not in scores]:
            raise ValueError(f"no layer {unknown[0]!r} with scores; there are {', '.join(scores)}")
        return cls({name: np.asarray(scores[name]) > 0 for name in names})

    @property
    def time_steps(self):
        """T, the maximum number of time steps."""
        return next(iter(self.masks.values())).size

    @property
    def layers(self):
        """{layer name: number of active time steps}."""
        return {name: int(mask.sum()) for name, mask in self.masks.items()}

    @property
    def modules(self):
        """{module name: mean over its layers of the number of active time steps}."""
        counts = {}
        for name, steps in self.layers.items():
            counts.setdefault(masks.module_of(name), []).append(steps)
        return {name: float(np.mean(steps)) for name, steps in counts.items()}

    @property
    def average(self):
        """Mean over all layers of the number of active time steps."""
        return float(np.mean(list(self.layers.values())))

    def resized(self, time_steps):
        """Returns the schedule for another number of time steps, see `with_time_steps`.

        Args:
          time_steps: the new T, a whole number >= 1.

        Raises:
          ValueError: for another number.
        """
        masks.check_time_steps(time_steps)
        return TimeStepSchedule(_resized(self.masks, time_steps, added=True, active=np.any))

    def as_lists(self):
        """Returns {layer name: [0 or 1 for each step]}, as JSON can hold it."""
        return {name: mask.astype(int).tolist() for name, mask in self.masks.items()}

    def save(self, path):
        """Writes the schedule as JSON.

        Args:
          path: file to write; its folder must exist.
        """
        content = {
            "time_steps": self.time_steps,
            "average": self.average,
            "modules": self.modules,
            "masks": self.as_lists(),
        }
        files.write_text(path, json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path):
        """Reads a schedule written by `save`.

        Args:
          path: JSON file; only its "masks" are read, the rest is there for people.

        Raises:
          ValueError: if the file is not a schedule, naming it, and the layer that does not fit.
        """
        try:
            return cls(json.loads(pathlib.Path(path).read_text())["masks"])
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{str(path)!r} is not a time-step schedule: {error!r}") from error
        except ValueError as error:  # of JSON, of its text, or of a schedule
            raise ValueError(f"{str(path)!r} is not a time-step schedule: {error}") from error


def with_schedule(variables, schedule):
    """Returns variables whose scores stand for exactly this schedule.

    Args:
      variables: {"params": ..., ...} of a model.
      schedule: a `TimeStepSchedule` for the same layers and the same T.

    Raises:
      ValueError: for what are no variables, anything else than a schedule, naming the layers that
        only one of them has, or the numbers of time steps.
    """
    if not isinstance(schedule, TimeStepSchedule):
        raise ValueError(
            f"schedule must be a TimeStepSchedule, got {type(schedule).__name__}: "
            "TimeStepSchedule(MASKS) makes one, TimeStepSchedule.load(PATH) reads one"
        )
    params = params_of(variables)
    old = masks.scores(params)
    if old.keys() != schedule.masks.keys():
        raise ValueError(
            "the schedule is for another model: "
            f"missing {sorted(old.keys() - schedule.masks.keys())}, "
            f"unexpected {sorted(schedule.masks.keys() - old.keys())}"
        )
    T = next(iter(old.values())).shape[0]
    if schedule.time_steps != T:
        raise ValueError(
            f"the schedule has {schedule.time_steps} time steps, the model {T}; "
            f"schedule.resized({T}) fits, or with_time_steps(variables, {schedule.time_steps}) and "
            f"a model of time_steps={schedule.time_steps}"
        )
    start = masks.INITIAL_SCORE
    new = {name: np.where(schedule.masks[name], start, -start).astype(np.float32) for name in old}
    return {**variables, "params": masks.replace_scores(params, new)}


def with_time_steps(variables, time_steps):
    """Returns variables for a model of another number of time steps, to run or to fine-tune.

    With fewer steps, each layer keeps the scores of its first ones; with more, those added start
    active, with the score that a new model has. Nothing else of a model depends on T: neurons carry
    what came before a step, never what comes after it, so that a layer does at the steps kept what
    it did, and the head takes the mean over T steps. A layer that was active at dropped steps only
    becomes silent; a warning names it. Only parallel neurons (psn) have learned how each step
    depends on each other one, and stay with their T.

    Args:
      variables: {"params": ..., ...} of a model, trained with any T.
      time_steps: the new T, a whole number >= 1.

    Returns:
      The variables with scores of [time_steps], in their own type.

    Raises:
      ValueError: for another number, what are no variables, parameters without scores, or neurons
        whose other parameters are of a number of time steps.
    """
    masks.check_time_steps(time_steps)
    params = params_of(variables)
    _check_no_other_depends_on_time_steps(params, time_steps)
    old = {name: np.asarray(score) for name, score in masks.scores(params).items()}
    new = _resized(old, time_steps, masks.INITIAL_SCORE, lambda score: np.any(score > 0))
    return {**variables, "params": masks.replace_scores(params, new)}


def _check_no_other_depends_on_time_steps(params, time_steps):
    flat = traverse_util.flatten_dict(dict(params))
    for (*layer, name), leaf in flat.items():
        T, shape = np.size(flat.get((*layer, masks.SCORE), ())), np.shape(leaf)
        if name != masks.SCORE and shape and set(shape) == {T} != {time_steps}:
            raise ValueError(
                f"cannot make {time_steps} of {T} time steps: {'/'.join((*layer, name))} is "
                f"{list(shape)}, a number for each step; train a model of {time_steps}"
            )


def check_time_steps_of(variables, time_steps):
    """Raises ValueError if a model's scores are for another number of time steps, naming both.

    Args:
      variables: {"params": ..., ...} of a model; without scores there is nothing to check.
      time_steps: T of the model that is to take them.
    """
    flat = traverse_util.flatten_dict(dict(params_of(variables)))
    found = {np.shape(leaf) for path, leaf in flat.items() if path[-1] == masks.SCORE}
    for shape in sorted(found - {(time_steps,)}):
        T = shape[0] if len(shape) == 1 else shape
        raise ValueError(
            f"the variables have {T} time steps, the model {time_steps}: resize them with "
            f"snn.with_time_steps(variables, {time_steps}), or create the model with time_steps={T}"
        )


def _resized(layers, time_steps, added, active):
    """{name: [time_steps]} of the first entries of each layer's, and `added` beyond them."""
    new = {}
    for name, old in layers.items():
        more = np.full(max(0, time_steps - old.size), added, old.dtype)
        new[name] = np.concatenate([old[:time_steps], more])
    silenced = [name for name in layers if active(layers[name]) and not active(new[name])]
    if silenced:
        warnings.warn(
            f"{len(silenced)} layers have no active step among the first {time_steps}, and become "
            f"silent: {', '.join(silenced[:5])}{' ...' if len(silenced) > 5 else ''}",
            stacklevel=3,
        )
    return new


def _as_mask(name, mask):
    try:
        found = np.asarray(mask)
    except ValueError:  # lists of several lengths
        found = np.zeros(0)
    if found.ndim != 1 or found.size < 1 or not np.isin(found, (0, 1)).all():
        got = values.shown(mask.tolist() if hasattr(mask, "tolist") else mask)
        raise ValueError(f"the mask of {name!r} must be a vector of 0 and 1, got {got}")
    return found.astype(bool)
