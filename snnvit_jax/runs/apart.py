"""Trainings in processes of their own, for studies that compare many of them.

Called by those in experiments/ alone.
"""

import json
import os
import subprocess
import sys
import warnings

from snnvit_jax.common import files
from snnvit_jax.runs.workdir import Workdir


def train(folder, arguments, cwd=None, prefix=(), append=True, root=None):
    """Trains one network in a process of its own, unless its folder holds it finished.

    What the process prints goes to FOLDER.log, beside the folder, and its arguments to
    FOLDER.command.json.

    Args:
      folder: of the run, a path.
      arguments: of `python -m snnvit_jax.main`, without the working directory.
      cwd: folder in which the process works; None is this one's.
      prefix: of the command, for example ("taskset", "-c", "0").
      append: whether an older log is kept and goes on.
      root: folder of the repository that the process imports from, wherever it works; None is what
        Python finds by itself.

    Raises:
      RuntimeError: with the command and the end of its output, if it fails; with both arguments,
        if the folder holds a finished run that got others.
    """
    arguments = list(arguments)
    if Workdir(folder).is_finished():
        check_arguments(folder, arguments)
        return
    files.make_folder(folder.parent)
    files.write_text(_kept(folder), json.dumps(arguments, indent=1) + "\n")
    command = [*prefix, sys.executable, "-m", "snnvit_jax.main", f"--workdir={folder}", *arguments]
    log = folder.with_name(f"{folder.name}.log")
    with log.open("a" if append else "w") as file:
        places = {"cwd": cwd, "env": root and _importing_from(root)}
        status = subprocess.run(command, **places, stdout=file, stderr=file).returncode
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {status}:\n{log.read_text()[-2000:]}")


def _importing_from(root):
    """The environment of a process that imports from one folder first, and from its own last.

    Python itself would put the folder in which a module is started before all others, and that may
    be another clone.
    """
    paths = [str(root), os.environ.get("PYTHONPATH"), os.getcwd()]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONSAFEPATH": "1"}


def check_arguments(folder, arguments):
    """Raises RuntimeError if a folder holds a finished run of other arguments than these.

    Where its arguments were not kept, it warns that they are not known.

    Args:
      folder: of the run, a path; there may be none.
      arguments: see `train`.

    Raises:
      RuntimeError: with the arguments of both.
    """
    if not Workdir(folder).is_finished():
        return
    try:
        before = json.loads(_kept(folder).read_text())
    except (FileNotFoundError, ValueError):
        message = f"{folder} is finished and is taken as it is: its arguments were not kept"
        warnings.warn(message, stacklevel=2)
        return
    if before != list(arguments):
        raise RuntimeError(
            f"{folder} holds a finished run of other arguments: {_shown(before)}; now they are "
            f"{_shown(arguments)}; choose another folder, or remove {_kept(folder).name} to take "
            "the run as it is"
        )


def _kept(folder):
    return folder.with_name(f"{folder.name}.command.json")


def _shown(arguments):
    return " ".join(map(str, arguments)) if isinstance(arguments, list) else repr(arguments)


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
