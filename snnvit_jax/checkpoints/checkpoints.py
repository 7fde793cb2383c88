"""Checkpoints of a training run; the only file that knows Orbax.

A checkpoint is written while training goes on, to a temporary folder that is renamed when complete,
so that one cut short is never taken for a finished one. Then the checksums of its files are written
beside it, so that a byte that changes later is found.
"""

import concurrent.futures
import json
import pathlib
import shutil
import warnings
from collections import Counter

import jax
import jax.numpy as jnp
from absl import logging
from orbax.checkpoint import v1 as ocp

from snnvit_jax import files
from snnvit_jax.checkpoints import checksums
from snnvit_jax.distributed import is_writer, true_for_all

_STATE = "state"


class Checkpoints:
    """Writes the checkpoints of one run and keeps the newest few and the most accurate one.

    Use it as a context manager, which waits for unfinished work at the end.

    Attributes:
      directory: folder that holds one numbered folder for each checkpoint.
    """

    def __init__(self, directory, keep=2, damaged=()):
        """Opens the folder for writing, creating it if there is none.

        Args:
          directory: path; no other process may write there.
          damaged: steps that `restore` could not read; they are moved aside, so that they can be
            saved again.
          keep: number of newest checkpoints to keep, >= 1; the most accurate is kept besides.
        """
        self.directory = pathlib.Path(directory).absolute()
        self._set_aside(sorted({*damaged, *_with_unreadable_metrics(self.directory)}))
        policies = ocp.training.preservation_policies
        newest = policies.LatestN(keep)
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics["accuracy"],
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Orbax tells users of its own older interface
            self._checkpointer = ocp.training.Checkpointer(
                self.directory,
                save_decision_policy=_SaveAlways(),
                preservation_policy=policies.AnyPreservationPolicy([newest, best]),
                cleanup_tmp_directories=True,
            )

        self._background = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.wait()
        finally:
            self._background.shutdown()
            self._checkpointer.close()

    @property
    def steps(self):
        """Steps of the finished checkpoints, oldest first."""
        return sorted(checkpoint.step for checkpoint in self._checkpointer.checkpoints)

    def save(self, step, state, accuracy=None):
        """Begins to write a checkpoint; those that are neither new nor best are removed after it.

        The state is copied before this returns. A save under way is waited for first.

        Args:
          step: its number; one that exists already is left as it is.
          state: a pytree of arrays.
          accuracy: by which the best is chosen; None leaves this one out of the choice.

        Raises:
          OSError: if the one before could not be written.
        """
        self.wait()
        if step not in self.steps:
            metrics = None if accuracy is None else {"accuracy": float(accuracy)}
            response = self._checkpointer.save_async(step, _own_copy(state), metrics=metrics)
            self._pending = self._background.submit(self._finish, step, response)

    def wait(self):
        """Waits for the save under way.

        Raises:
          OSError: if it failed.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            try:
                pending.result()
            except Exception as error:  # TensorStore tells of a full disk by a ValueError
                raise OSError(f"a checkpoint could not be written: {error}") from error

    def check(self):
        """Raises OSError if the save under way has failed by now; never waits."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def _finish(self, step, response):
        response.result()
        if is_writer():
            files.flush_tree(self.directory / str(step))  # Orbax does not: a power cut may undo it
            checksums.write(self.directory / str(step))
            checksums.remove_orphans(self.directory)

    def _set_aside(self, steps):
        for step in steps if is_writer() else ():
            target = self.directory.parent / f"damaged-checkpoint-{step}"
            shutil.rmtree(target, ignore_errors=True)
            shutil.move(self.directory / str(step), target)
            checksums.path_for(self.directory / str(step)).unlink(missing_ok=True)
            logging.warning("damaged checkpoint %d is now %s", step, target)
        true_for_all(True)  # the others wait, so that none opens the folder before


def restore(directory, template):
    """Loads the newest checkpoint that can be read, going back past damaged ones.

    The folder is only read, so that a run may go on in it at the same time.

    Args:
      directory: folder that holds one numbered folder for each checkpoint; need not exist.
      template: a pytree of arrays with the shapes, types and placement wanted.

    Returns:
      ((step, state), damaged): the first None if there is no checkpoint at all, the second the
      steps of those that could not be read.

    Raises:
      ValueError: if there are checkpoints but none can be read, or they are of another model.
    """
    damaged = []
    for step, folder in reversed(finished_checkpoints(directory)):
        try:
            _check_sums(folder)
            stored = _stored_shapes(folder)
            _check_same_shapes(folder, stored, template)
            state, problem = _load(folder, _abstract(template)), None
        except _OtherModelError:
            raise
        except Exception as error:  # Orbax, TensorStore and the file system each raise their own
            problem = error
        if true_for_all(problem is None):
            return (step, state), damaged
        damaged.append(step)
        if problem is not None:
            text = "checkpoint %d in %s cannot be read (%s); trying the one before it"
            logging.warning(text, step, directory, _first_line(problem))
    if damaged:
        raise ValueError(
            f"none of the checkpoints {damaged} in {directory} can be read; "
            "remove that folder to start again, or use another --workdir"
        )
    return None, damaged


def load_variables(directory):
    """Loads a run's variables from its newest checkpoint, whatever its model is.

    Args:
      directory: folder that holds one numbered folder for each checkpoint; it is only read.

    Returns:
      {"params", "batch_stats"} on one device; the average over past steps if the run kept one.

    Raises:
      ValueError: if there is no checkpoint, or the newest cannot be read.
    """
    finished = finished_checkpoints(directory)
    if not finished:
        raise ValueError(f"there is no checkpoint in {directory}")
    folder = finished[-1][1]
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    try:
        _check_sums(folder)
        state = _load(
            folder,
            jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
                _stored_shapes(folder),
            ),
        )
    except Exception as error:  # see `restore`
        raise ValueError(f"checkpoint {folder} cannot be read: {_first_line(error)}") from error
    if state.get("average") is not None:
        return state["average"]
    return {"params": state["params"], "batch_stats": state["batch_stats"]}


class _OtherModelError(ValueError):
    """Checkpoints that are sound, but of another model."""


class _SaveAlways(ocp.training.save_decision_policies.SaveDecisionPolicy):
    """The training loop itself decides when to save."""

    def should_save(self, *args, **kwargs):
        """Returns True."""
        return True


def add_accuracy(directory, step, accuracy):
    """Gives a checkpoint that was saved without one the accuracy by which the best is chosen.

    Must come before the folder is opened by `Checkpoints`.

    Args:
      directory: folder that holds one numbered folder for each checkpoint.
      step: of a finished checkpoint.
      accuracy: to write beside its state.

    Raises:
      OSError: if it cannot be written.
    """
    folder = pathlib.Path(directory).absolute() / str(step)
    files.make_folder(folder / "metrics")
    files.write_text(folder / "metrics" / "metrics", json.dumps({"accuracy": float(accuracy)}))
    checksums.write(folder)


def _own_copy(state):
    """Copies what lies in the host's memory, which the next step may write to.

    From other devices Orbax itself copies to the host before it goes on in the background.
    """
    return jax.tree.map(
        lambda leaf: jnp.copy(leaf) if jax.default_backend() == "cpu" else leaf, state
    )


def finished_checkpoints(directory):
    """Returns [(step, folder)] of the finished checkpoints, oldest first.

    Args:
      directory: folder that holds one numbered folder for each checkpoint; need not exist.
    """
    folders = pathlib.Path(directory).absolute().glob("*")
    return sorted((int(f.name), f) for f in folders if f.name.isdigit() and f.is_dir())


def _with_unreadable_metrics(directory):
    """Steps whose metrics are damaged: Orbax reads all of them when it opens the folder."""
    damaged = []
    for step, folder in finished_checkpoints(directory):
        try:
            for path in (folder / "metrics").glob("metrics"):
                json.loads(path.read_text())
        except (OSError, ValueError):
            damaged.append(step)
    return damaged


def _check_sums(folder):
    if not checksums.check(folder):  # killed between renaming and writing them, or an older version
        logging.warning("checkpoint %s has no checksums; it is used unchecked", folder)


def _stored_shapes(folder):
    stored = ocp.checkpointables_metadata(folder).metadata[_STATE]
    if not jax.tree.leaves(stored):  # what Orbax returns for a damaged list of arrays
        raise ValueError("its list of arrays is damaged")
    return stored


def _abstract(template):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), template
    )


def _load(folder, abstract):
    return ocp.load_checkpointables(folder, {_STATE: abstract})[_STATE]


def _check_same_shapes(folder, stored, template):
    stored, wanted = (
        Counter((tuple(leaf.shape), str(leaf.dtype)) for leaf in jax.tree.leaves(tree))
        for tree in (stored, template)
    )
    if stored != wanted:
        raise _OtherModelError(
            f"checkpoint {folder} is of another model or optimizer: it holds arrays "
            f"{_listed(stored - wanted)} where {_listed(wanted - stored)} are wanted; "
            "use another --workdir, or the settings it was started with"
        )


def _listed(shapes, most=3):
    shown = [f"{dtype}{list(shape)}" for shape, dtype in list(shapes)[:most]]
    return ", ".join(shown) + (" ..." if len(shapes) > most else "") or "nothing"


def _first_line(error):
    """What went wrong at the bottom: Orbax wraps the file system's error several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
