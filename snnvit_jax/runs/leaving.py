"""How one of several processes leaves a run that failed, and which failures are not its own."""

import os
import re
import sys

import jax

from snnvit_jax.runs import restart
from snnvit_jax.runs.command_line import fail

# How messages of JAX's runtime begin.
_RUNTIME_STATUS = re.compile(
    "(ABORTED|CANCELLED|DATA_LOSS|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|UNKNOWN): "
)


def comes_from_devices(error):
    """Returns whether it is bad input only by its type: a failed computation that was passed on.

    Args:
      error: an exception.
    """
    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    return any(
        isinstance(cause, jax.errors.JaxRuntimeError) or _RUNTIME_STATUS.match(str(cause))
        for cause in causes
    )


def leave_as_lost(reason):
    """Leaves because another process is lost, see `leave`.

    Args:
      reason: exception or message that tells of it.
    """
    print(file=sys.stderr)  # after a progress bar
    message = (
        "lost contact with another process of this run; the last checkpoint is kept: start all "
        f"processes again with the same workdir ({str(reason).splitlines()[0][:200]})"
    )
    return leave(fail(message, restart.LOST_PROCESS))


def leave(status):
    """Ends one of several processes at once: to leave orderly, it would wait for the others.

    Args:
      status: exit status.

    Returns:
      The status, if there are no others.
    """
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status
