"""Checkpoints of a training run; the only file that knows Orbax.

A checkpoint is written to a temporary folder and renamed when complete, so that one cut short is
never taken for a finished one.
"""

import pathlib
import shutil
import warnings

import jax
from absl import logging
from orbax.checkpoint import v1 as ocp


class Checkpoints:
    """The checkpoints of one run: the newest few and the most accurate one.

    Use it as a context manager, which waits for unfinished work at the end.

    Attributes:
      directory: folder that holds one numbered folder for each checkpoint.
    """

    def __init__(self, directory, keep=2):
        """Opens the folder, creating it if there is none.

        Args:
          directory: path.
          keep: number of newest checkpoints to keep, >= 1; the most accurate is kept besides.
        """
        self.directory = pathlib.Path(directory).absolute()
        policies = ocp.training.preservation_policies
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._checkpointer = ocp.training.Checkpointer(
                self.directory,
                save_decision_policy=_SaveAlways(),
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(keep),
                        policies.BestN(
                            get_metric_fn=lambda metrics: metrics["accuracy"],
                            n=1,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                cleanup_tmp_directories=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._checkpointer.close()

    @property
    def steps(self):
        """Steps of the finished checkpoints, oldest first."""
        return sorted(checkpoint.step for checkpoint in self._checkpointer.checkpoints)

    def save(self, step, state, accuracy=None):
        """Writes a checkpoint and removes those that are neither new nor best.

        Args:
          step: its number; one that exists already is left as it is.
          state: a pytree of arrays.
          accuracy: by which the best is chosen; None leaves this one out of the choice.
        """
        if step not in self.steps:
            metrics = None if accuracy is None else {"accuracy": float(accuracy)}
            self._checkpointer.save(step, state, metrics=metrics)

    def restore_newest(self, template):
        """Loads the newest checkpoint that can be read, going back past damaged ones.

        Args:
          template: a pytree of arrays with the shapes, types and placement wanted.

        Returns:
          (step, state), or None if there is no checkpoint at all.

        Raises:
          ValueError: if there are checkpoints but none can be read.
        """
        damaged = []
        for step in reversed(self.steps):
            try:
                state = self._load(step, template)
            except (
                Exception
            ) as error:  # Orbax, TensorStore and the file system each raise their own
                damaged.append(step)
                logging.warning(
                    "checkpoint %d in %s cannot be read (%s); trying the one before it",
                    step,
                    self.directory,
                    _first_line(error),
                )
            else:
                self._discard(damaged)
                return step, state
        if damaged:
            raise ValueError(
                f"none of the checkpoints {damaged} in {self.directory} can be read; "
                "remove that folder to start again, or use another --workdir"
            )
        return None

    def _load(self, step, template):
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
            template,
        )
        return self._checkpointer.load(step, abstract)

    def _discard(self, steps):
        """Moves damaged checkpoints out of the way, so that their steps can be saved again."""
        for step in steps:
            folder = self.directory / str(step)
            target = self.directory.parent / f"damaged-checkpoint-{step}"
            shutil.rmtree(target, ignore_errors=True)
            shutil.move(folder, target)
            logging.warning("damaged checkpoint %d is now %s", step, target)
        if steps:
            self._checkpointer.reload()


class _SaveAlways(ocp.training.save_decision_policies.SaveDecisionPolicy):
    """The training loop itself decides when to save."""

    def should_save(self, *args, **kwargs):
        """Returns True."""
        return True


def _first_line(error):
    """What went wrong at the bottom: Orbax wraps the file system's error several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
