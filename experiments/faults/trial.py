"""One training run that is disturbed: starting it, watching its folder, comparing how it ended."""

import functools
import os
import pathlib
import re
import subprocess
import sys
import time

import config as faults_config
import jax
import numpy as np

from snnvit_jax.runs import experiment, loop
from snnvit_jax.runs.workdir import Workdir

REPOSITORY = pathlib.Path(__file__).parents[2]
CONFIG = pathlib.Path(__file__).with_name("config.py")
POLL_SECONDS = 0.004


@functools.cache
def plan():
    """Returns the undisturbed run's `Experiment`, which knows when it evaluates and saves."""
    return experiment.build(faults_config.get_config())


class Trial:
    """A run in a folder of its own, started again and again by the same command.

    Attributes:
      folder: its workdir.
      flags: of the command, besides the configuration and the folder.
      output: what its last process wrote, once it has ended.
    """

    def __init__(self, folder, *flags, log=None):
        """Keeps what to start.

        Args:
          folder: the workdir.
          *flags: of the command.
          log: file for what it writes; None puts it beside the folder.
        """
        self.folder, self.flags, self.output = pathlib.Path(folder), flags, ""
        self._log = pathlib.Path(log or self.folder.with_name(f"{self.folder.name}.log"))

    def start(self):
        """Starts the command and returns its process."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._newest_before, self._metrics_before = self.newest, self._metrics_file()
        command = [sys.executable, "-m", "snnvit_jax.main", f"--config={CONFIG}", *self.flags]
        with self._log.open("w") as log:
            return subprocess.Popen(
                [*command, f"--workdir={self.folder}"], cwd=REPOSITORY, stdout=log, stderr=log
            )

    def end(self, process, seconds=1800):
        """Waits for a process to end and returns its exit status; None if it hangs, and is killed.

        Args:
          process: from `start`.
          seconds: to wait.
        """
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            status = None
        self.output = self._log.read_text(errors="replace")
        return status

    def finish(self):
        """Starts the command, waits for its end and returns the exit status."""
        return self.end(self.start())

    def error(self):
        """Returns the line in which the last process said what was wrong."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        clear = [line for line in lines if line.startswith("error: ")]
        raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
        return (clear or raised or lines or [""])[-1].replace(str(self.folder), "WORKDIR")

    def wait(self, process, condition, seconds=1800):
        """Returns whether a condition came true before the process ended.

        Args:
          process: from `start`.
          condition: function without arguments.
          seconds: to wait at most.

        Raises:
          TimeoutError: if neither happened.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if process.poll() is not None:
                return False
            if condition():
                return True
            time.sleep(POLL_SECONDS)
        raise TimeoutError(f"nothing happened in {self.folder} for {seconds} s")

    @property
    def lines(self):
        """Lines of metrics."""
        return Workdir(self.folder).read_metrics()

    @property
    def steps(self):
        """Steps of the finished checkpoints, oldest first."""
        folders = (self.folder / "checkpoints").glob("*")
        return sorted(int(path.name) for path in folders if path.name.isdigit())

    @property
    def newest(self):
        """Step of the newest finished checkpoint, 0 without one."""
        return max(self.steps, default=0)

    @property
    def done(self):
        """Last step logged."""
        return max((line["step"] for line in self.lines), default=0)

    def stepped(self):
        """Returns whether the present process has logged a training step."""
        # A process that has restored its checkpoint replaces the file before its first step.
        replaced = self._metrics_file() != self._metrics_before
        return replaced and self.done > self._newest_before

    def _metrics_file(self):
        path = self.folder / "metrics.jsonl"
        return path.stat().st_ino if path.exists() else None

    def saving(self):
        """Returns whether a checkpoint is being written."""
        checkpoints = self.folder / "checkpoints"
        return any("tmp" in path.name for path in checkpoints.glob("*")) or any(
            not (checkpoints / f"{step}.sha256").exists() for step in self.steps
        )

    def evaluating(self):
        """Returns whether the last step logged is one after which an evaluation is due."""
        lines = self.lines[-1:]
        return any("loss" in line and _evaluates(line["step"]) for line in lines)

    def phase(self):
        """Returns what a process that was killed just now was doing, from what it left."""
        if self.saving():
            return "save"
        if self.newest == plan().total_steps:
            return "results and report"
        if not self.stepped():
            return "start: import, restore, compile"
        if self.evaluating():
            return "evaluation"
        if self.done > self.newest and plan().ends_epoch(self.done):
            return "save"
        return "step, and data in its threads"


def _evaluates(step):
    return step % plan().steps_per_evaluation == 0 or step == plan().total_steps


def final(folder):
    """Returns (training state, [(step, loss)]) at the end of a run.

    Args:
      folder: its workdir.
    """
    run = loop.Run(faults_config.get_config(), folder, training=False)
    losses = [(line["step"], line.get("loss")) for line in run.workdir.read_metrics()]
    return jax.device_get(run.state), losses


def identical(a, b):
    """Returns whether two results of `final` agree in every bit.

    Args:
      a: one.
      b: the other.
    """
    leaves = zip(jax.tree.leaves(a[0]), jax.tree.leaves(b[0]), strict=True)
    return a[1] == b[1] and all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in leaves
    )


def use_cache(folder):
    """Lets this process and those it starts keep compiled programs, so that a restart is quick.

    Args:
      folder: to keep them in.
    """
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    jax.config.update("jax_platforms", "cpu")
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["PYTHONPATH"] = str(REPOSITORY)
