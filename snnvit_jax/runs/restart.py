"""Starts a run again when it died: --restart=N.

The trainer runs in a process of its own, so that whatever kills it, out-of-memory killers and
broken drivers included, leaves somebody who can start it again. This one holds no device.
"""

import pathlib
import signal
import subprocess
import sys
import threading

from snnvit_jax.data.decode import DamagedImage
from snnvit_jax.data.loader import WorkerDiedError

# Exit status if another process of the run is lost: EX_TEMPFAIL, "try again later".
LOST_PROCESS = 75
MAX_SECONDS = 60
# Trained to the end, and bad input, which would be bad again.
_FINAL = (0, 2)
_ASKED = (signal.SIGTERM, signal.SIGINT)


class PassingError(OSError):
    """No bad input, but a file that could not be read or written, and perhaps can the next time."""


def status_of(error):
    """Returns the exit status for an error: 2 for bad input, 1 for what may be gone the next time.

    A damaged image counts as the latter: it may have been read wrongly, or be put right meanwhile.

    Args:
      error: an exception.
    """
    return 1 if isinstance(error, (PassingError, DamagedImage, WorkerDiedError)) else 2


def check(several, workdir):
    """Raises ValueError if --restart does not go with the other flags.

    Args:
      several: whether the run has several processes.
      workdir: path given, or None.
    """
    if several and not workdir:
        raise ValueError("--restart with several processes needs the same --workdir for all")


def child_command(command, workdir):
    """Returns the command that runs once what another one runs again and again.

    Args:
      command: [program, argument, ...] with --restart among them; of flags, the last counts.
      workdir: where both write; the default would be a new folder each time.
    """
    return [sys.executable, *command[1:], f"--workdir={workdir}", "--restart=0"]


def cause_of_death(status):
    """Returns what ended a run that is worth starting again, or None if it is not.

    Args:
      status: as of `subprocess.Popen.returncode`: negative for a signal.
    """
    asked = [number for signum in _ASKED for number in (-signum, 128 + signum)]
    if status in (*_FINAL, *asked):
        return None
    if status == LOST_PROCESS:
        return "another process was lost"
    if status < 0:
        return f"it was killed by {signal.Signals(-status).name}"
    return f"it crashed with exit status {status}"


def exit_status(status):
    """Returns an exit status as shells give it: 128 + the signal's number for a signal.

    Args:
      status: as of `subprocess.Popen.returncode`.
    """
    return 128 - status if status < 0 else status


def seconds_before(tries):
    """Returns how long to wait before a restart: 1, 2, 4, ... at most 60 seconds.

    Args:
      tries: which restart without progress it is, from 1.
    """
    return min(MAX_SECONDS, 2 ** min(tries - 1, MAX_SECONDS))


def newest_step(checkpoints):
    """Returns the step of the newest finished checkpoint, 0 without one.

    Args:
      checkpoints: folder that holds one numbered folder for each; need not exist.
    """
    steps = [int(path.name) for path in pathlib.Path(checkpoints).glob("*") if path.name.isdigit()]
    return max(steps, default=0)


def run(command, checkpoints, restarts, seconds=seconds_before):
    """Runs a command and starts it again while it dies.

    It is not started again after its end, after bad input (exit status 2), and after SIGTERM or
    SIGINT to either process; this one passes them on, so that a training saves and stops.

    Args:
      command: [program, argument, ...].
      checkpoints: folder of its checkpoints; a newer one there makes counting begin anew.
      restarts: how many restarts in a row may bring no newer checkpoint, >= 0.
      seconds: function of the number of this restart in that row, from 1; how long to wait.

    Returns:
      The exit status of the last process.
    """
    tries, best = 0, newest_step(checkpoints)
    with _Child() as child:
        while True:
            status = child.run(command)
            cause = cause_of_death(status)
            if cause is None or child.asked:
                return exit_status(status)
            step = newest_step(checkpoints)
            tries, best = (1 if step > best else tries + 1), max(best, step)
            if tries > restarts:
                _say(f"{cause}; {restarts} restarts brought no newer checkpoint than step {best}")
                return exit_status(status)
            wait = seconds(tries)
            _say(f"{cause}; restart {tries} of {restarts} from step {step} in {wait} s")
            child.pause(wait)
            if child.asked:
                return 128 + child.asked


class _Child:
    """One process after the other; passes on the signals that ask to stop. A context manager.

    Attributes:
      asked: number of the last signal of that kind, or None.
    """

    def __init__(self):
        self.asked = None
        self._process, self._passed = None, False
        self._woken = threading.Event()
        self._previous = {}

    def __enter__(self):
        numbers = list(_ASKED)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # under nohup it stays ignored
            numbers.append(signal.SIGHUP)
        self._previous = {number: signal.signal(number, self._pass_on) for number in numbers}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def run(self, command):
        """Runs a command in a session of its own, which a terminal's Ctrl-C reaches only once."""
        self._process = subprocess.Popen(command, start_new_session=True)
        if self.asked and not self._passed:  # while it was being started
            self._pass_on(self.asked)
        status = self._process.wait()
        self._process = None
        return status

    def pause(self, seconds):
        """Waits, but not longer than until a signal comes."""
        self._woken.wait(seconds)

    def _pass_on(self, number, _frame=None):
        self.asked = number
        self._woken.set()
        if self._process is not None:
            self._passed = True
            self._process.send_signal(number)


def _say(text):
    print(f"restart: {text}", file=sys.stderr, flush=True)
