"""The folder of a run that was given none: runs/CONFIG/TIME."""

import contextlib
import datetime
import os
import pathlib

from snnvit_jax import distributed
from snnvit_jax.runs.workdir import claim


@contextlib.contextmanager
def new(name, alone=False):
    """A new folder, which is removed again if nothing was written there, until the block ends.

    Args:
      name: of the configuration.
      alone: whether only this process asks for it; otherwise all of the run get the same.

    Raises:
      OSError: if it cannot be created.
    """
    path = _claimed(name, alone)
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):  # not empty: a run
            os.removedirs(path)


def _claimed(name, alone):
    """A folder that no other run has, the same in all processes of this one."""
    folder, now = pathlib.Path("runs") / name, datetime.datetime.now()
    date, time = (int(now.strftime(part)) for part in ("%Y%m%d", "%H%M%S"))
    if alone or distributed.is_writer():
        number = claim(folder, lambda number: _folder_name(date, time, number))
        if alone:
            return folder / _folder_name(date, time, number)
    else:
        number = 0
    return folder / _folder_name(*distributed.same_for_all([date, time, number]))


def _folder_name(date, time, number):
    return f"{date}-{time:06}" + (f"-{number}" if number > 1 else "")
