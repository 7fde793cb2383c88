"""Where a run's progress goes: progress bar, metrics.jsonl and TensorBoard files."""

import json
import sys

from tensorboardX import SummaryWriter
from tqdm import tqdm

from snnvit_jax.common import files
from snnvit_jax.runs.workdir import plain


def create_log(workdir, total_steps, start_step, writes=True, watch=None):
    """Returns a `ProgressLog`, or a `SilentLog` for a process that leaves writing to another.

    Args:
      workdir: a `Workdir`.
      total_steps: of the whole training.
      start_step: steps done already.
      writes: whether this process writes.
      watch: see `ProgressLog`.
    """
    return ProgressLog(workdir, total_steps, start_step, watch) if writes else SilentLog()


class SilentLog:
    """Stands in for `ProgressLog` and writes nothing."""

    def __init__(self):
        self.bar = tqdm(disable=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self, step, values):
        """Does nothing."""

    def flush(self):
        """Does nothing."""

    def show(self, values):
        """Does nothing."""

    def say(self, text):
        """Does nothing."""


class ProgressLog:
    """Shows progress and writes metrics as they come; a context manager.

    Attributes:
      bar: the progress bar over training steps.
    """

    def __init__(self, workdir, total_steps, start_step, watch=None):
        """Opens the files for appending.

        Args:
          workdir: a `Workdir`.
          total_steps: of the whole training.
          start_step: steps done already.
          watch: function that is called with every line of metrics, a dictionary.
        """
        self._watch = watch
        self._jsonl = workdir.metrics.open("a", buffering=1)
        self._tensorboard = SummaryWriter(str(workdir.tensorboard), purge_step=start_step + 1)
        self.bar = tqdm(
            desc="train",
            total=total_steps,
            initial=start_step,
            unit="step",
            dynamic_ncols=True,
            # A log file gets a line now and then, a terminal a live bar.
            mininterval=0.2 if sys.stderr.isatty() else 15,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()
        self._tensorboard.close()
        self._jsonl.close()

    def write(self, step, values):
        """Writes one line of metrics.

        Args:
          step: optimiser steps done.
          values: {name: number}.
        """
        line = {"step": step} | {name: plain(value) for name, value in values.items()}
        self._jsonl.write(json.dumps(line) + "\n")
        for name, value in values.items():
            self._tensorboard.add_scalar(name, float(value), step)
        if self._watch is not None:
            self._watch(line)

    def flush(self):
        """Makes sure that the lines written so far are on disk."""
        files.flush(self._jsonl)

    def show(self, values):
        """Shows metrics beside the progress bar.

        Args:
          values: {name: text}.
        """
        self.bar.set_postfix(values, refresh=False)

    def say(self, text):
        """Prints a line without disturbing the bar.

        Args:
          text: to print.
        """
        tqdm.write(text, file=sys.stderr)
