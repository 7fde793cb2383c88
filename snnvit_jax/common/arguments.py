"""Types of command-line arguments for `argparse`, which refuse a bad value before any work."""

import argparse
import os

from snnvit_jax.common import values
from snnvit_jax.common.paths import expanded


def whole(low, **more):
    """Returns the type of a whole number.

    Args:
      low: the least that fits.
      **more: `high`, the most that fits.
    """
    return _typed(int, values.whole(low, **more))


def number(*args, **more):
    """Returns the type of a finite number.

    Args:
      *args: the least and the most that fit, see `values.number`.
      **more: `above` or `below`, what it must be above or below in place of them.
    """
    return _typed(float, values.number(*args, **more))


def output_folder(text):
    """Returns the path of a folder to write to, which need not exist yet.

    Args:
      text: what the user wrote.

    Raises:
      argparse.ArgumentTypeError: for a path at or above which there is something else, or a folder
        that may not be written to.
    """
    try:
        path = expanded(text)
        there = next(one for one in (path, *path.parents) if one.exists() or one.is_symlink())
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{str(there)!r} is no folder: give another path")
    if not os.access(there, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{str(there)!r} may not be written to")
    return path


def output_file(text):
    """Returns the path of a file to write to, in a folder that exists.

    Args:
      text: what the user wrote.

    Raises:
      argparse.ArgumentTypeError: for a folder, for a path in none, or for one that may not be
        written to.
    """
    try:
        path = expanded(text)
        is_folder, in_folder = path.is_dir(), path.parent.is_dir()
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if is_folder:
        raise argparse.ArgumentTypeError(f"{text!r} is a folder: give the path of a file")
    if not in_folder:
        raise argparse.ArgumentTypeError(f"{text!r}: there is no folder {str(path.parent)!r}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} may not be written to")
    return path


def _typed(kind, rule):
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if not rule.fits(value):
            raise argparse.ArgumentTypeError(f"{text!r} must be {rule.must}")
        return value

    return parse
