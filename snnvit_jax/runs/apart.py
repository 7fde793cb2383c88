"""Trainings in processes of their own, for studies that compare many of them."""

import subprocess
import sys

from snnvit_jax.runs.workdir import Workdir


def train(folder, arguments, cwd=None, prefix=(), append=True):
    """Trains one network in a process of its own, unless its folder holds it finished.

    What the process prints goes to FOLDER.log, beside the folder.

    Args:
      folder: of the run, a path.
      arguments: of `python -m snnvit_jax.main`, without the working directory.
      cwd: folder in which the process works; None is this one's.
      prefix: of the command, for example ("taskset", "-c", "0").
      append: whether an older log is kept and goes on.

    Raises:
      RuntimeError: with the command and the end of its output, if it fails.
    """
    if Workdir(folder).is_finished():
        return
    command = [*prefix, sys.executable, "-m", "snnvit_jax.main", f"--workdir={folder}", *arguments]
    log = folder.with_name(f"{folder.name}.log")
    with log.open("a" if append else "w") as file:
        status = subprocess.run(command, cwd=cwd, stdout=file, stderr=file).returncode
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {status}:\n{log.read_text()[-2000:]}")


def parse(parser, arguments):
    """Returns the options of a study; `overrides`, besides, is what follows --, for every run.

    Args:
      parser: an `argparse.ArgumentParser`.
      arguments: of the command line.
    """
    mark = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:mark])
    options.overrides = arguments[mark + 1 :]
    return options
