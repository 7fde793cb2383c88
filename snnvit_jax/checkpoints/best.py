"""Which checkpoint of a run is the best: what an evaluation found is written beside each state.

A network that learns its time steps is mostly more accurate before it has given them up. So a
checkpoint within the run's budget of time steps comes before any that is above it; among equals the
more accurate one is better, then the newer one.
"""

import dataclasses
import json
import pathlib

from snnvit_jax.checkpoints import reading


@dataclasses.dataclass(frozen=True)
class Measured:
    """What an evaluation found of a checkpoint.

    Attributes:
      accuracy: in [0, 1].
      split: the data that it was measured on; None if a version before this record wrote it.
      on_budget: whether the average time steps are within the run's target; True without a target.
    """

    accuracy: float
    split: str | None = None
    on_budget: bool = True

    @property
    def rank(self):
        """What the better checkpoint has more of."""
        return self.on_budget, self.accuracy

    def to_plain(self):
        """Returns the record as a dictionary that JSON can hold."""
        return dataclasses.asdict(self) | {"accuracy": float(self.accuracy)}

    @classmethod
    def from_plain(cls, values):
        """Returns the record that `to_plain` gave, also as versions without `split` wrote it.

        Args:
          values: dictionary with at least "accuracy".

        Raises:
          ValueError: if it holds no accuracy.
        """
        try:
            return cls(
                float(values["accuracy"]),
                values.get("split"),
                bool(values.get("on_budget", True)),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{values!r} tells no accuracy") from error


def path_in(folder):
    """Returns the path of the record in a checkpoint's folder, where Orbax keeps metrics.

    Args:
      folder: pathlib path of the checkpoint.
    """
    return folder / "metrics" / "metrics"


def read(folder):
    """Returns what was measured of a checkpoint, or None if it was saved without an evaluation.

    Args:
      folder: pathlib path of the checkpoint.

    Raises:
      ValueError: naming the file, if it holds something else.
      OSError: if it cannot be read, in several attempts.
    """
    path = path_in(folder)
    if not path.exists():
        return None
    try:
        return Measured.from_plain(json.loads(reading.patiently(path.read_bytes, folder)))
    except ValueError as error:
        raise ValueError(f"{path} does not tell what was measured: {error}") from error


def choose(finished, directory):
    """Returns (step, folder, `Measured`) of the best checkpoint there is.

    Args:
      finished: [(step, folder)], oldest first.
      directory: that holds them, for the error's message.

    Raises:
      ValueError: if none was evaluated, or a record is damaged.
    """
    measured = [(step, folder, read(folder)) for step, folder in finished]
    evaluated = [one for one in measured if one[2] is not None]
    if not evaluated:
        steps = ", ".join(str(step) for step, _ in finished) or "none"
        raise ValueError(
            f"no best checkpoint is recorded in {pathlib.Path(directory)} (checkpoints: {steps}, "
            "none of them evaluated): use --checkpoint=last, or train on until an evaluation"
        )
    return max(evaluated, key=lambda one: (one[2].rank, one[0]))
