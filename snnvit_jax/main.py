"""The command line: snnvit, or python -m snnvit_jax.main --config=configs/digits.py."""

import contextlib
import pathlib
import sys
import traceback

import jax

from snnvit_jax import distributed, extras
from snnvit_jax.common import values
from snnvit_jax.distributed import peers
from snnvit_jax.xla import compilation_cache

try:
    with extras.needed("train"):
        from absl import app, flags, logging
        from ml_collections import config_dict, config_flags

        from snnvit_jax.data.loader import WorkerDiedError
        from snnvit_jax.runs import commands, folders, loop, restart
        from snnvit_jax.runs.command_line import fail, parse_flags
        from snnvit_jax.runs.leaving import comes_from_devices, leave, leave_as_lost
        from snnvit_jax.runs.workdir import Workdir
except extras.MissingExtraError as missing:
    sys.exit(f"error: {missing}")

# What a mode does with a run, or with the paths given, in the format asked for.
MODES = {
    "train": lambda run, _: commands.train(run, _PROFILE.value),
    "evaluate": lambda run, _: commands.evaluate(run),
    "report": lambda run, _: commands.report(run),
    "export": commands.export,
    "predict": lambda paths, form: commands.predict(_place(), paths, form),
    "compare": lambda paths, _: commands.compare(paths, _OUTPUT.value),
}
ON_PATHS = ("predict", "compare")
ON_RUNS = tuple(mode for mode in MODES if mode not in ON_PATHS)
# The modes that each flag goes with.
GOES_WITH = {
    "config": ON_RUNS,
    "workdir": (*ON_RUNS, "predict"),
    "checkpoint": ("evaluate", "report", "export"),
    "format": ("export", "predict"),
    "model": ("predict",),
    "output": ("compare",),
    **dict.fromkeys(("restart", "profile"), ("train",)),
    **dict.fromkeys(("coordinator_address", "num_processes", "process_id"), ON_RUNS),
    **dict.fromkeys(("distributed", "heartbeat_timeout"), ON_RUNS),
}
FORMATS = {"predict": ("table", "json"), "export": ("snn", "onnx")}
USAGE = """\
snnvit_jax trains spiking vision transformers whose layers learn how many time steps they need.

  python -m snnvit_jax.main --config=configs/digits.py              train (minutes, no download)
      --workdir=DIR              where to write; a folder that holds a run is continued
      --config.seed=1            any key of the configuration
      --restart=5                start again by itself if it dies
      --profile=10               write a trace of so many steps, for TensorBoard or Perfetto
  python -m snnvit_jax.main --workdir=DIR --mode=evaluate           evaluate what DIR holds
  python -m snnvit_jax.main --workdir=DIR --mode=report             draw its report again
  python -m snnvit_jax.main --workdir=DIR --mode=export             write it as one file
      --format=onnx              for other runtimes
      --checkpoint=best          of these three: of the best checkpoint, into DIR/best
  python -m snnvit_jax.main --model=DIR --mode=predict PATH...      predict images or recordings
      --model=FILE.snn           by an exported model
      --format=json              a line of JSON for each file
  python -m snnvit_jax.main --mode=compare DIR DIR...               one page on several runs
      --output=FILE              where to write it; default comparison.html

Several processes share a run if each runs the same command (docs/sharding.md): under srun, mpirun
or on GKE as it is, on a TPU pod with --distributed, elsewhere with
      --coordinator_address=HOST:PORT --num_processes=N --process_id=I
"""

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, see configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/CONFIG/TIME.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "host:port of process 0 of several; SLURM and others tell it."
)
_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes of this run.")
_PROCESS = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", None, "Join other processes; by default if a launcher started several."
)
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_timeout", distributed.HEARTBEAT_TIMEOUT, "Seconds until a silent process is lost."
)
_RESTART = flags.DEFINE_integer(
    "restart",
    0,
    "How often to start again a run that died, in a row without a newer checkpoint.",
    lower_bound=0,
)
_PROFILE = flags.DEFINE_integer(
    "profile", 0, "Steps of which a trace is written, for TensorBoard or Perfetto.", lower_bound=0
)
_MODE = flags.DEFINE_enum("mode", "train", list(MODES), "What to do.")
_MODEL = flags.DEFINE_string("model", None, "A run's folder or an exported file, to predict with.")
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "last", ("last", "best"), "Which one evaluate, report and export look at."
)
_OUTPUT = flags.DEFINE_string("output", "comparison.html", "The page that compare writes.")
_FORMAT = flags.DEFINE_string("format", None, "How to write what a mode writes.")


def main(argv):
    """Runs the command line and returns the exit status.

    Args:
      argv: what absl left over; the program's name first.
    """
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file otherwise
    takes_paths = _MODE.value in ON_PATHS
    if len(argv) > 1 and not takes_paths:
        return fail(f"unexpected arguments {argv[1:]}; flags start with --")
    try:
        check_flags(_MODE.value)
        if _CONFIG.value is None and _WORKDIR.value is None and not takes_paths:
            print(USAGE)
            return 0 if len(sys.argv) == 1 else 2
        if _RESTART.value:
            return _restart()
        form = _format()
        compilation_cache.use()
        if takes_paths:
            return MODES[_MODE.value](argv[1:], form)
        _join()
        with _workdir() as workdir:
            training = _MODE.value == "train"
            run = loop.Run(_config(), workdir, training, _CHECKPOINT.value)
            return MODES[_MODE.value](run, form)
    except (ValueError, OSError, FloatingPointError, WorkerDiedError) as error:
        if jax.distributed.is_initialized() and comes_from_devices(error):
            return leave_as_lost(error)
        return leave(fail(error, restart.status_of(error)))
    except jax.errors.JaxRuntimeError as error:
        if not jax.distributed.is_initialized():
            raise
        return leave_as_lost(error)
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        return leave(1)


def check_flags(mode):
    """Raises ValueError naming a flag that has another value than its default and no use.

    Args:
      mode: of the command line, a key of `MODES`.
    """
    for name, modes in GOES_WITH.items():
        flag = flags.FLAGS[name]
        if mode not in modes and flag.value != flag.default:
            known = " or ".join(filter(None, (", ".join(modes[:-1]), modes[-1])))
            raise ValueError(f"--{name} goes with --mode={known}, not with --mode={mode}")


def _restart():
    several = distributed.is_wanted(_DISTRIBUTED.value, _COORDINATOR.value)
    restart.check(several, _WORKDIR.value)
    with _workdir(alone=True) as path:
        workdir = Workdir(path)
        return restart.run(
            restart.child_command(sys.orig_argv, workdir.path),
            workdir.checkpoints,
            _RESTART.value,
        )


def _join():
    joined = distributed.initialize(
        _DISTRIBUTED.value,
        coordinator_address=_COORDINATOR.value,
        num_processes=_PROCESSES.value,
        process_id=_PROCESS.value,
        heartbeat_timeout=_HEARTBEAT.value,
    )
    if joined:
        peers.watch(_HEARTBEAT.value, leave_as_lost)


def _config():
    """The configuration given, or else the one that the workdir was trained with."""
    if _CONFIG.value is not None:
        if not isinstance(_CONFIG.value, config_dict.ConfigDict):
            raise ValueError(f"the configuration file gives {_CONFIG.value!r}, no ConfigDict")
        return _CONFIG.value
    config = Workdir(_WORKDIR.value).read_config()
    if config is None:
        raise ValueError(f"the workdir {_WORKDIR.value} holds no run; give a --config too")
    return config


def _workdir(alone=False):
    """The folder given, or a new one, which is removed again if nothing was written there."""
    if _WORKDIR.value is not None:
        return contextlib.nullcontext(_WORKDIR.value)
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    return folders.new(pathlib.Path(file).stem, alone)


def _place():
    """The network to predict with: as --model gives it, or the run's folder, which is no name."""
    is_folder = not _MODEL.value and _WORKDIR.value
    return Workdir(_WORKDIR.value).path if is_folder else _MODEL.value


def _format():
    """The format given, or the first that the mode knows; None for a mode without any."""
    known = FORMATS.get(_MODE.value, (None,))
    if _FORMAT.value is not None:
        values.one_of(known).check("--format", _FORMAT.value)
    return _FORMAT.value or known[0]


def command():
    """Runs the command line; the console script `snnvit`."""
    app.run(main, flags_parser=parse_flags)


if __name__ == "__main__":
    command()
