"""Configurations that come with the package, found by their names: `--config=digits`."""

import pathlib

from snnvit_jax.common.nearest import did_you_mean
from snnvit_jax.common.paths import expanded

_PACKAGE = pathlib.Path(__file__).parents[1]
# Where they lie: in an installed package, and in a clone.
FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")


def names():
    """Returns {name: path} of the configurations that come with the package."""
    for folder in FOLDERS:
        found = {path.stem: path for path in sorted(folder.glob("*.py"))}
        if found:
            return found
    return {}


def locate(given):
    """Returns a configuration as a file: a path as it is, a name as the file of that name.

    Args:
      given: path or name, perhaps with ":ARGUMENT" behind it, as `--config` takes it; "~" is that
        of shells.

    Raises:
      FileNotFoundError: naming it and the one that may have been meant.
    """
    path, colon, argument = given.partition(":")
    file, known = expanded(path), names()
    if file.is_file():
        return f"{file}{colon}{argument}"
    shipped = path.removeprefix("configs/").removesuffix(".py")
    if shipped in known:
        return f"{known[shipped]}{colon}{argument}"
    raise FileNotFoundError(
        f"--config={path!r}: there is no such file{did_you_mean(shipped, known)}; give a file, or "
        f"one of {', '.join(known)}"
    )
