"""The folder of a run: what lies where, and whether it can be used."""

import contextlib
import fcntl
import itertools
import json
import math
import os
import pathlib
import shutil

from snnvit_jax import pretrained
from snnvit_jax.common import files
from snnvit_jax.common.paths import expanded
from snnvit_jax.runs import config as config_lib


class InUseError(OSError):
    """A folder that another process is training in."""


class Workdir:
    """Paths of a run's folder, and reading and writing its small files.

    Attributes:
      path: the folder, absolute.
    """

    def __init__(self, path):
        """Names a folder, which need not exist.

        Args:
          path: of the folder; "~" stands for the user's home, as in a shell.

        Raises:
          ValueError: if it is the name of a trained network, which has no such folder.
        """
        if str(path).startswith(pretrained.PREFIX):
            name = str(path).removeprefix(pretrained.PREFIX)
            raise ValueError(
                f"{path} is a trained network, not a run's folder: predict with it "
                f"(--mode=predict --model={path}), train on (--config.init_from={path}) or deploy "
                f"it (snn.load_pretrained({name!r}))"
            )
        self.path = expanded(path).absolute()

    config = property(lambda self: self.path / "config.json")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    checkpoints = property(lambda self: self.path / "checkpoints")
    tensorboard = property(lambda self: self.path / "tensorboard")
    schedule = property(lambda self: self.path / "schedule.json")
    summary = property(lambda self: self.path / "summary.json")
    classes = property(lambda self: self.path / "classes.json")
    origin = property(lambda self: self.path / "origin.json")
    teacher = property(lambda self: self.path / "teacher")
    report = property(lambda self: self.path / "report.html")
    best = property(lambda self: BestResults(self.path / "best"))

    def prepare(self, free_bytes):
        """Creates the folder and makes sure that it can be written to.

        Args:
          free_bytes: what the run is going to write at least.

        Raises:
          OSError: naming the folder, if it cannot be created or written, or has not enough space.
        """
        try:
            files.make_folder(self.path)
            probe = self.path / f".write-test-{os.getpid()}"
            probe.write_bytes(b"\0" * 4096)
            probe.unlink(missing_ok=True)  # a process elsewhere may have the same number
        except OSError as error:
            raise OSError(
                f"cannot write to the workdir {self.path}: {error.strerror}; "
                "choose another --workdir"
            ) from error
        free = shutil.disk_usage(self.path).free
        if free < free_bytes:
            raise OSError(
                f"the workdir {self.path} has {free / 1e6:.0f} MB of free space, but the run needs "
                f"{free_bytes / 1e6:.0f} MB; free some or choose another --workdir"
            )

    def read_config(self):
        """Returns the configuration of the run that this folder holds, or None if it holds none.

        Raises:
          ValueError: if there is another config.json, such as that of a trained network.
        """
        if not self.config.exists():
            return None
        try:
            return config_lib.from_json(self.config.read_text())
        except ValueError as error:
            if pretrained.is_network(self.path):
                raise ValueError(
                    f"{self.path} holds a trained network and no run: "
                    f"--config.init_from={self.path} starts from it, in another folder"
                ) from error
            raise ValueError(f"{self.config} is not a run's configuration: {error}") from error

    def required_config(self):
        """Returns the configuration of the run that this folder must hold.

        Raises:
          FileNotFoundError: if it holds none.
          ValueError: see `read_config`.
        """
        config = self.read_config()
        if config is None:
            raise FileNotFoundError(f"{self.path} holds no run: there is no config.json in it")
        return config

    def write_config(self, config, step):
        """Writes the run's configuration, keeping another one that was valid until now.

        Args:
          config: a ConfigDict.
          step: training steps done; the old configuration becomes config-until-step-STEP.json.
        """
        text, old = config_lib.to_json(config), self.read_config()
        if old is not None and config_lib.differences(config_lib.complete(old), config):
            until = self.path / f"config-until-step-{step}.json"
            files.write_text(until, self.config.read_text())
        files.write_text(self.config, text)

    @contextlib.contextmanager
    def lock(self):
        """Keeps every other process from training in this folder, until the `with` block ends.

        Raises:
          InUseError: if another process does already.
          OSError: if the folder cannot be written, or its file system knows no locks.
        """
        with (self.path / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InUseError(
                    f"another process is training in the workdir {self.path}; "
                    "stop it, or use another --workdir"
                ) from error
            except OSError as error:
                raise OSError(
                    f"cannot lock the workdir {self.path} against other processes: "
                    f"{error.strerror}; choose a --workdir on another file system"
                ) from error
            yield

    def is_finished(self):
        """Returns whether the folder holds the results of a training that came to its end.

        A summary.json of fewer steps than config.json asks for is that of a shorter training, or of
        an evaluation by an earlier version while the training was still going on.
        """
        try:
            summary = json.loads(self.summary.read_text())
        except (FileNotFoundError, ValueError):
            return False
        config = self.read_config()
        if not isinstance(summary, dict):  # damaged
            return False
        if config is None or not summary.get("steps") or not summary.get("epochs"):
            return True  # nothing says otherwise
        steps_per_epoch = summary["steps"] / summary["epochs"]
        return summary["steps"] > config.epochs * steps_per_epoch - 0.5 - 1e-6

    def check_beginning(self):
        """Raises ValueError if a training that begins would take the place of one that went on."""
        if os.path.lexists(self.checkpoints) and not self.checkpoints.is_dir():
            raise ValueError(
                f"{self.checkpoints} is no folder, nor a link to one: put back what was there, or "
                "use another --workdir"
            )
        if self.summary.exists():
            raise ValueError(
                f"the workdir {self.path} holds the results of a finished run, but none of "
                "its checkpoints any more: a training would begin again and replace them; put the "
                "checkpoints back, or use another --workdir"
            )

    def put_results_aside(self, step):
        """Renames the results of a training that goes on, so that none is taken for its end.

        Args:
          step: training steps done; summary.json becomes summary-until-step-STEP.json, and the
            folder best becomes best-until-step-STEP.
        """
        for path in (self.summary, self.schedule, self.best.path):
            if path.exists():
                aside = path.with_stem(f"{path.stem}-until-step-{step}")
                if aside.is_dir():  # a folder takes the place of an empty one only
                    shutil.rmtree(aside)
                files.replace(path, aside)

    def read_metrics(self):
        """Returns the lines of metrics.jsonl, oldest first; damaged ones are left out."""
        if not self.metrics.exists():
            return []
        lines = [_parsed(line) for line in self.metrics.read_bytes().splitlines()]
        return [x for x in lines if isinstance(x, dict) and isinstance(x.get("step"), int)]

    def cut_metrics(self, step):
        """Drops what metrics.jsonl says of steps after `step`, which are going to be done again.

        Args:
          step: the last step to keep.

        Returns:
          The lines kept.
        """
        kept = [line for line in self.read_metrics() if line["step"] <= step]
        files.write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))
        return kept

    def write_summary(self, summary):
        """Writes summary.json.

        Args:
          summary: dictionary of plain numbers and strings.
        """
        files.write_text(self.summary, json.dumps(summary, indent=1) + "\n")


class BestResults(Workdir):
    """The folder for the results of a run's best checkpoint; the log is that of the run."""

    metrics = property(lambda self: self.path.parent / "metrics.jsonl")


def claim(folder, name_of):
    """Creates a folder that nobody else has created, for a new run.

    Args:
      folder: path of the folder to create it in; created if there is none.
      name_of: function of a number, 1, 2, ... -> name to try.

    Returns:
      The number whose name was free.

    Raises:
      OSError: if none can be created.
    """
    try:
        files.make_folder(folder)
        for number in itertools.count(1):
            with contextlib.suppress(FileExistsError):
                (pathlib.Path(folder) / name_of(number)).mkdir()
                return number
    except OSError as error:
        raise OSError(
            f"cannot create a folder for the run in {folder}: {error.strerror}; give a --workdir"
        ) from error


def _parsed(line):
    try:
        return json.loads(line)
    except ValueError:  # no JSON, or no text
        return None


def plain(value):
    """Returns a number as JSON can hold it: a non-finite one as None.

    Args:
      value: number or array scalar.
    """
    value = float(value)
    return value if math.isfinite(value) else None
