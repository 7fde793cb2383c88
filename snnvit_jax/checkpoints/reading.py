"""Reading a checkpoint: damage is told apart from a file system that fails, and from a misfit.

Only damage makes a training go back to the checkpoint before. What is whole is kept and named: the
next attempt, or the version that wrote it, may read it.
"""

import time

from absl import logging

from snnvit_jax.checkpoints import checksums
from snnvit_jax.checkpoints.matching import OtherModelError

# Seconds to wait before reading again what could not be read.
_PAUSES = (1.0, 4.0)


class DamagedError(ValueError):
    """A checkpoint that is not what was written."""


def read(folder, load):
    """Loads a checkpoint after its checksums were compared.

    Args:
      folder: pathlib path of the checkpoint.
      load: function without arguments that loads it.

    Returns:
      What `load` returns.

    Raises:
      DamagedError: if the checksums do not hold, or there are none and it cannot be loaded.
      OSError: if the file system does not give it away, in several attempts.
      ValueError: if it is whole and cannot be loaded, or is of another model.
    """
    try:
        has_sums = patiently(lambda: checksums.check(folder), folder)
    except ValueError as error:
        raise DamagedError(f"checkpoint {folder} cannot be read: {error}") from error
    if not has_sums:  # killed between renaming and writing them, or an older version
        logging.warning("checkpoint %s has no checksums; it is used unchecked", folder)
    try:
        return patiently(load, folder, Exception)
    except (OtherModelError, OSError):
        raise
    except Exception as error:  # Orbax and TensorStore each raise their own
        if not has_sums:
            raise DamagedError(f"checkpoint {folder} cannot be read: {reason(error)}") from error
        raise ValueError(
            f"checkpoint {folder} is whole, its checksums hold, but it cannot be loaded: "
            f"{reason(error)}; it stays as it is: continue it with the versions of this program "
            "and of Orbax that wrote it, or use another --workdir"
        ) from error


def patiently(action, folder, errors=OSError):
    """Does something, and does it again after a pause if it fails.

    Args:
      action: function without arguments.
      folder: pathlib path of the checkpoint that it reads.
      errors: kinds of errors after which to try again; OtherModelError is none of them.

    Returns:
      What the action returns.

    Raises:
      OSError: if the file system failed each time, saying that the checkpoint stays as it is.
      Exception: of those kinds, if it failed each time for another reason.
    """
    for pause in _PAUSES:
        try:
            return action()
        except OtherModelError:
            raise
        except errors as error:
            logging.warning("checkpoint %s: %s; trying again in %g s", folder, reason(error), pause)
            time.sleep(pause)
    try:
        return action()
    except errors as error:
        if not isinstance(_bottom(error), OSError) or not folder.exists():
            raise
        raise OSError(
            f"checkpoint {folder} cannot be read, in {len(_PAUSES) + 1} attempts: {reason(error)}; "
            "it stays as it is: run the same command again when the file system gives it away"
        ) from error


def reason(error):
    """Returns in one line what went wrong at the bottom.

    Args:
      error: an exception; Orbax wraps those of the file system several times.
    """
    error = _bottom(error)
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _bottom(error):
    while error.__cause__ is not None:
        error = error.__cause__
    return error
