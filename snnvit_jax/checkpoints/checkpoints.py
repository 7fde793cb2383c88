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

import jax
import jax.numpy as jnp
from absl import logging
from orbax.checkpoint import v1 as ocp

from snnvit_jax.checkpoints import best, checksums, matching, reading
from snnvit_jax.common import files, values
from snnvit_jax.distributed import is_writer, true_for_all

LAST, BEST = "last", "best"
_STATE = "state"


class Checkpoints:
    """Writes the checkpoints of one run and keeps the newest few and the best one.

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
          keep: number of newest checkpoints to keep, >= 1; the best is kept besides, see `best`.
        """
        self.directory = pathlib.Path(directory).absolute()
        self._set_aside(sorted({*damaged, *_with_damaged_metrics(self.directory)}))
        policies = ocp.training.preservation_policies
        newest = policies.LatestN(keep)
        most_accurate = policies.BestN(
            get_metric_fn=lambda metrics: best.Measured.from_plain(metrics).rank,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Orbax tells users of its own older interface
            self._checkpointer = ocp.training.Checkpointer(
                self.directory,
                save_decision_policy=_SaveAlways(),
                preservation_policy=policies.AnyPreservationPolicy([newest, most_accurate]),
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

    def save(self, step, state, measured=None):
        """Begins to write a checkpoint; those that are neither new nor best are removed after it.

        The state is copied before this returns. A save under way is waited for first.

        Args:
          step: its number; one that exists already is left as it is.
          state: a pytree of arrays.
          measured: a `best.Measured`, by which the best is chosen; None leaves this one out of the
            choice.

        Raises:
          OSError: if the one before could not be written.
        """
        self.wait()
        if step not in self.steps:
            metrics = None if measured is None else measured.to_plain()
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
    """Loads the newest checkpoint that is whole, going back past damaged ones.

    The folder is only read, so that a run may go on in it at the same time. A checkpoint is damaged
    if its checksums do not hold, or if it has none and cannot be loaded. One that is whole, or that
    the file system does not give away, is never passed over: that would be the end of it, because
    the training that goes on from the one before writes it again.

    Args:
      directory: folder that holds one numbered folder for each checkpoint; need not exist.
      template: a pytree of arrays with the shapes, types and placement wanted.

    Returns:
      ((step, state), damaged): the first None if there is no checkpoint at all, the second the
      steps of those that are damaged.

    Raises:
      ValueError: if there are checkpoints but all are damaged, or the newest that is not is of
        another model, or cannot be loaded.
      OSError: if one cannot be read, in several attempts.
    """
    damaged = []
    for step, folder in reversed(finished_checkpoints(directory)):
        state, problem = None, None
        try:
            state = reading.read(folder, lambda folder=folder: _load_as(folder, template))
        except Exception as error:  # told to all processes before any of them leaves
            problem = error
        is_damaged = isinstance(problem, reading.DamagedError)
        if not true_for_all(problem is None or is_damaged):
            raise problem or OSError(f"another process cannot read checkpoint {folder}")
        if true_for_all(problem is None):
            return (step, state), damaged
        damaged.append(step)
        if problem is not None:
            text = "checkpoint %d in %s cannot be read (%s); trying the one before it"
            logging.warning(text, step, directory, reading.reason(problem))
    if damaged:
        raise ValueError(
            f"none of the checkpoints {damaged} in {directory} can be read, all are damaged; "
            "start again with another --workdir, or put back what was written there"
        )
    return None, damaged


def restore_best(directory, template):
    """Loads the best checkpoint, see `best`; the folder is only read.

    Args:
      directory: folder that holds one numbered folder for each checkpoint.
      template: a pytree of arrays with the shapes, types and placement wanted.

    Returns:
      (step, state, `best.Measured`).

    Raises:
      ValueError: if none is recorded as the best, or it is damaged, of another model, or cannot be
        loaded.
      OSError: if it cannot be read, in several attempts.
    """
    step, folder, measured = best.choose(finished_checkpoints(directory), directory)
    return step, reading.read(folder, lambda: _load_as(folder, template)), measured


def load_variables(directory, which=LAST):
    """Loads a run's variables from a checkpoint, whatever its model is.

    Args:
      directory: folder that holds one numbered folder for each checkpoint; it is only read.
      which: "last", the newest, or "best", see `best`.

    Returns:
      {"params", "batch_stats"} on one device; the average over past steps if the run kept one.

    Raises:
      ValueError: for another word, if there is no checkpoint, none is recorded as the best, or the
        one wanted is damaged or cannot be loaded.
      OSError: if it cannot be read, in several attempts.
    """
    wants_best = is_best(which)
    finished = finished_checkpoints(directory)
    if not finished:
        raise ValueError(f"there is no checkpoint in {directory}")
    folder = best.choose(finished, directory)[1] if wants_best else finished[-1][1]
    state = reading.read(folder, lambda: _load_whole(folder))
    if state.get("average") is not None:
        return state["average"]
    return {"params": state["params"], "batch_stats": state["batch_stats"]}


def is_best(which):
    """Returns whether the best checkpoint is meant, not the last.

    Args:
      which: "last" or "best".

    Raises:
      ValueError: for anything else.
    """
    values.one_of((LAST, BEST)).check("checkpoint", which)
    return which == BEST


class _SaveAlways(ocp.training.save_decision_policies.SaveDecisionPolicy):
    """The training loop itself decides when to save."""

    def should_save(self, *args, **kwargs):
        """Returns True."""
        return True


def add_measured(directory, step, measured):
    """Gives a checkpoint that was saved without it what the best is chosen by.

    Must come before the folder is opened by `Checkpoints`.

    Args:
      directory: folder that holds one numbered folder for each checkpoint.
      step: of a finished checkpoint.
      measured: a `best.Measured`, to write beside its state.

    Raises:
      OSError: if it cannot be written.
    """
    folder = pathlib.Path(directory).absolute() / str(step)
    files.make_folder(best.path_in(folder).parent)
    files.write_text(best.path_in(folder), json.dumps(measured.to_plain()))
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


def _with_damaged_metrics(directory):
    """Steps whose metrics are damaged: Orbax reads all of them when it opens the folder."""
    damaged = []
    for step, folder in finished_checkpoints(directory):
        try:
            best.read(folder)
        except ValueError:
            damaged.append(step)
    return damaged


def _load_as(folder, template):
    """Loads a checkpoint into the structure of a template, whatever it was saved in."""
    stored = _stored_shapes(folder)
    abstract, places = matching.match(folder, stored, template)
    leaves = jax.tree.leaves(_load(folder, abstract))
    return jax.tree.unflatten(jax.tree.structure(template), [leaves[place] for place in places])


def _load_whole(folder):
    """Loads a checkpoint as it was saved, onto one device."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return _load(
        folder,
        jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
            _stored_shapes(folder),
        ),
    )


def _stored_shapes(folder):
    stored = ocp.checkpointables_metadata(folder).metadata[_STATE]
    if not jax.tree.leaves(stored):  # what Orbax returns for a damaged list of arrays
        raise ValueError("its list of arrays is damaged")
    return stored


def _load(folder, abstract):
    return ocp.load_checkpointables(folder, {_STATE: abstract})[_STATE]
