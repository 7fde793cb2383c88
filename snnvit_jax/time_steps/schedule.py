"""TimeStepSchedule: at which time steps each layer of a model is active."""

import dataclasses
import json
import pathlib

import numpy as np

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
          names: layer names in the order wanted, for example `layer_names(model)`; None keeps the
            order of the parameter tree, which `jax.jit` sorts by name.
        """
        scores = masks.scores(variables["params"])
        return cls({name: np.asarray(scores[name]) > 0 for name in names or scores})

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
            counts.setdefault(name.rpartition("/")[0] or name, []).append(steps)
        return {name: float(np.mean(steps)) for name, steps in counts.items()}

    @property
    def average(self):
        """Mean over all layers of the number of active time steps."""
        return float(np.mean(list(self.layers.values())))

    def save(self, path):
        """Writes the schedule as JSON.

        Args:
          path: file to write; its folder must exist.
        """
        content = {
            "time_steps": self.time_steps,
            "average": self.average,
            "modules": self.modules,
            "masks": {name: mask.astype(int).tolist() for name, mask in self.masks.items()},
        }
        pathlib.Path(path).write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path):
        """Reads a schedule written by `save`.

        Args:
          path: JSON file; only its "masks" are read, the rest is there for people.

        Raises:
          ValueError: if the file is not a schedule.
        """
        try:
            return cls(json.loads(pathlib.Path(path).read_text())["masks"])
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{str(path)!r} is not a time-step schedule: {error!r}") from error


def with_schedule(variables, schedule):
    """Returns variables whose scores stand for exactly this schedule.

    Args:
      variables: {"params": ..., ...} of a model.
      schedule: a `TimeStepSchedule` for the same layers and the same T.

    Raises:
      ValueError: naming the layers that only one of them has, or the numbers of time steps.
    """
    old = masks.scores(variables["params"])
    if old.keys() != schedule.masks.keys():
        raise ValueError(
            "the schedule is for another model: "
            f"missing {sorted(old.keys() - schedule.masks.keys())}, "
            f"unexpected {sorted(schedule.masks.keys() - old.keys())}"
        )
    T = next(iter(old.values())).shape[0]
    if schedule.time_steps != T:
        raise ValueError(f"the schedule has {schedule.time_steps} time steps, the model {T}")
    start = masks.INITIAL_SCORE
    new = {name: np.where(schedule.masks[name], start, -start).astype(np.float32) for name in old}
    return {**variables, "params": masks.replace_scores(variables["params"], new)}


def _as_mask(name, mask):
    mask = np.asarray(mask)
    if mask.ndim != 1 or mask.size < 1 or not np.isin(mask, (0, 1)).all():
        raise ValueError(f"the mask of {name!r} must be a vector of 0 and 1, got {mask.tolist()}")
    return mask.astype(bool)
