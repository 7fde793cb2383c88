"""The command line: python -m snnvit_jax.main --config=configs/digits.py."""

import datetime
import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from snnvit_jax import loop
from snnvit_jax.deploy.flops import model_flops
from snnvit_jax.workdir import Workdir

MODES = ("train", "evaluate", "report", "export")
USAGE = """\
snnvit_jax trains spiking vision transformers whose layers learn how many time steps they need.

  python -m snnvit_jax.main --config=configs/digits.py              train (minutes, no download)
      --workdir=DIR              where to write; a folder that holds a run is continued
      --config.seed=1            any key of the configuration
  python -m snnvit_jax.main --workdir=DIR --mode=evaluate           evaluate what DIR holds
  python -m snnvit_jax.main --workdir=DIR --mode=report             draw its report again
  python -m snnvit_jax.main --workdir=DIR --mode=export             write it as one file
"""

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, see configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/CONFIG/TIME.")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")


def main(argv):
    """Runs the command line and returns the exit status.

    Args:
      argv: what absl left over; the program's name first.
    """
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file otherwise
    if len(argv) > 1:
        return _fail(f"unexpected arguments {argv[1:]}; flags start with --")
    if _CONFIG.value is None and _WORKDIR.value is None:
        print(USAGE)
        return 0 if len(sys.argv) == 1 else 2
    try:
        run = loop.Run(*_config_and_workdir(), training=_MODE.value == "train")
        actions = {"train": _train, "export": _export}
        return actions.get(_MODE.value, _evaluate)(run)
    except (ValueError, OSError, FloatingPointError) as error:
        return _fail(error)


def _parse_flags(argv):
    """Parses the command line; what the configuration file or a key does not allow ends here."""
    names = [argument.lstrip("-").partition("=")[0] for argument in argv[1:]]
    override = next((name for name in names if name.startswith("config.")), None)
    if override and "config" not in names:
        sys.exit(_fail(f"--{override} changes a configuration file: give it too, as --config=FILE"))
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        sys.exit(_fail(f"in the configuration: {error}"))


def _config_and_workdir():
    """The configuration given, or else the one that the workdir was trained with."""
    if _CONFIG.value is not None:
        return _CONFIG.value, _WORKDIR.value or _new_workdir()
    config = Workdir(_WORKDIR.value).read_config()
    if config is None:
        raise ValueError(f"the workdir {_WORKDIR.value} holds no run; give a --config too")
    return config, _WORKDIR.value


def _new_workdir():
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    return pathlib.Path("runs") / name / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")


def _train(run):
    print(f"workdir {run.workdir.path}")
    summary = run.train()
    if summary is None:
        print(f"run the same command with --workdir={run.workdir.path} to continue")
        return 128 + run.stop_signal
    _print_summary(run, summary)
    return 0


def _evaluate(run):
    result = run.evaluate()
    summary = run.write_results(result)
    if _MODE.value == "report":
        run.write_report(result)
    _print_summary(run, summary)
    return 0


def _export(run):
    deployed, path = run.export()
    model, channels = run.experiment.model, run.experiment.image_shape[-1]
    before, after = model_flops(model, run.state.eval_variables, 1, channels), deployed.flops(1)
    print(
        f"average time steps {deployed.schedule.average:.2f} of {deployed.schedule.time_steps}, "
        f"{after / 1e6:.4g} MFLOPs an image, {after / before:.3f} of the masked model's\n"
        f"deployed {path}\nweights  {path.with_suffix('.safetensors')}"
    )
    return 0


def _print_summary(run, summary):
    print(
        f"{summary['split']} accuracy {summary['accuracy']:.4f} on {summary['examples']} examples, "
        f"average time steps {summary['average_time_steps']:.2f} of {summary['time_steps']}, "
        f"energy {summary['energy_uj']:.3g} µJ an image\n"
        f"summary {run.workdir.summary}\nreport  {run.workdir.report}"
    )


def _fail(message):
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
