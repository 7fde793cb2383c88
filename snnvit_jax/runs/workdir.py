"""The folder of a run: what lies where, and whether it can be used."""

import contextlib
import fcntl
import json
import math
import os
import pathlib
import shutil

from snnvit_jax.runs import config as config_lib


class Workdir:
    """Paths of a run's folder, and reading and writing its small files.

    Attributes:
      path: the folder, absolute.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path).absolute()

    config = property(lambda self: self.path / "config.json")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    checkpoints = property(lambda self: self.path / "checkpoints")
    tensorboard = property(lambda self: self.path / "tensorboard")
    schedule = property(lambda self: self.path / "schedule.json")
    summary = property(lambda self: self.path / "summary.json")
    report = property(lambda self: self.path / "report.html")

    def prepare(self, free_bytes):
        """Creates the folder and makes sure that it can be written to.

        Args:
          free_bytes: what the run is going to write at least.

        Raises:
          OSError: naming the folder, if it cannot be created or written, or has not enough space.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
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
        """Returns the configuration of the run that this folder holds, or None if it holds none."""
        if not self.config.exists():
            return None
        try:
            return config_lib.from_json(self.config.read_text())
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"{self.config} is not a run's configuration: {error}") from error

    def write_config(self, config, step):
        """Writes the run's configuration, keeping another one that was valid until now.

        Args:
          config: a ConfigDict.
          step: training steps done; the old configuration becomes config-until-step-STEP.json.
        """
        text = config_lib.to_json(config)
        if self.config.exists() and self.config.read_text() != text:
            os.replace(self.config, self.path / f"config-until-step-{step}.json")
        write_atomically(self.config, text)

    @contextlib.contextmanager
    def lock(self):
        """Keeps every other process from training in this folder, until the `with` block ends.

        Raises:
          OSError: if another process does already.
        """
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise OSError(
                    f"another process is training in the workdir {self.path}; "
                    "stop it, or use another --workdir"
                ) from error
            yield

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
        write_atomically(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))
        return kept

    def write_summary(self, summary):
        """Writes summary.json.

        Args:
          summary: dictionary of plain numbers and strings.
        """
        write_atomically(self.summary, json.dumps(summary, indent=1) + "\n")


def _parsed(line):
    try:
        return json.loads(line)
    except ValueError:  # no JSON, or no text
        return None


# What the meaning of "step 1000" depends on: model, data, their order, and the optimiser's state.
_FIXED = (
    *("model.", "data.name", "data.train_split", "data.events.split", "data.repeats"),
    *("seed", "batch_size"),
    *("optimizer.name", "average_decay"),
)
_FREE = ("model.remat",)


def check_same_run(workdir, config):
    """Raises ValueError if a folder holds a run that these settings cannot continue.

    Args:
      workdir: a `Workdir`.
      config: the configuration of the run that wants to use it.

    Returns:
      ["key: old -> new"] for every other setting that differs.
    """
    old = workdir.read_config()
    if old is None:
        return []
    different = config_lib.differences(old, config)
    fixed = [line for line in different if line.startswith(_FIXED) and not line.startswith(_FREE)]
    if fixed:
        raise ValueError(
            f"the workdir {workdir.path} holds another run ({'; '.join(fixed)}); "
            "use another --workdir, or the settings it was started with"
        )
    return different


def write_atomically(path, text):
    """Writes a file such that a reader, or a crash, never sees half of it.

    Args:
      path: a pathlib path.
      text: its new content.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def plain(value):
    """Returns a number as JSON can hold it: a non-finite one as None.

    Args:
      value: number or array scalar.
    """
    value = float(value)
    return value if math.isfinite(value) else None
