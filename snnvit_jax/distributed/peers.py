"""Notices that another process of the run has fallen silent, and which one.

Every process counts up a number of its own that process 0 keeps, and reads everyone's. A process
whose number stands still for too long is lost. So is process 0 if it answers no more. JAX watches
too, but in a way that says nothing of what happened and cannot be answered: it aborts the process.
"""

import threading
import time
from typing import NamedTuple

import jax
from jax._src import distributed as jax_distributed  # no public name for the store of numbers

_KEY = "snnvit_jax/beats/"
_BEATS_PER_TIMEOUT = 10
_MAX_SECONDS_BETWEEN_BEATS = 5.0


class Heard(NamedTuple):
    """What is known of the processes.

    Attributes:
      beats: {process: the number it has counted up to}.
      silence: {process: seconds in which its number stood still, although process 0 answered}.
      unanswered: seconds since process 0 answered.
    """

    beats: dict
    silence: dict
    unanswered: float = 0.0


def nothing_heard(processes):
    """Returns the `Heard` of a run that starts.

    Args:
      processes: how many there are.
    """
    return Heard(dict.fromkeys(range(processes), 0), dict.fromkeys(range(processes), 0.0))


def listen(heard, answer, seconds):
    """Returns what is known after some more time.

    Args:
      heard: the `Heard` before.
      answer: {process: number}, those without one left out; None if process 0 did not answer.
      seconds: that have passed.
    """
    if answer is None:
        return heard._replace(unanswered=heard.unanswered + seconds)
    beats = heard.beats | answer
    silence = {
        process: heard.silence[process] + seconds if number == heard.beats[process] else 0.0
        for process, number in beats.items()
    }
    return Heard(beats, silence)


def find_lost(heard, timeout):
    """Returns the process that has been silent for longest, or None if none was for too long.

    Args:
      heard: a `Heard`.
      timeout: seconds after which a process counts as lost.
    """
    if heard.unanswered >= timeout:  # nobody is heard then
        return 0
    process = max(heard.silence, key=heard.silence.get)
    return process if heard.silence[process] >= timeout else None


class Watcher:
    """What one process does to be heard, and to hear the others.

    Attributes:
      seconds: to wait between two beats, and between two looks.
    """

    def __init__(self, store, process, processes, timeout):
        """Begins with nothing heard.

        Args:
          store: with the methods of JAX's client that count up and read numbers.
          process: which one this is.
          processes: how many there are.
          timeout: seconds after which a silent process is lost.
        """
        self.seconds = min(timeout / _BEATS_PER_TIMEOUT, _MAX_SECONDS_BETWEEN_BEATS)
        self._store, self._key = store, f"{_KEY}{process}"
        # Process 0 leaves last, or the others would find it gone before they know why.
        self._timeout = timeout + (2 * self.seconds if process == 0 else 0)
        self._heard = nothing_heard(processes)
        self._answer = None

    def beat(self):
        """Counts up this process's number and reads everyone's; may wait long for an answer."""
        try:
            self._store.key_value_increment(self._key, 1)
            pairs = self._store.key_value_dir_get(_KEY)
        except jax.errors.JaxRuntimeError:
            return
        self._answer = {int(key.rpartition("/")[2]): int(number) for key, number in pairs}

    def look(self, seconds):
        """Returns what is to be said of a process that is lost, or None; never waits.

        Args:
          seconds: since the last look.
        """
        answer, self._answer = self._answer, None
        # If this process itself was stopped, the others are not to blame.
        self._heard = listen(self._heard, answer, min(seconds, 2 * self.seconds))
        process = find_lost(self._heard, self._timeout)
        if process is None:
            return None
        return (
            f"process {process} of {len(self._heard.beats)} has been silent for "
            f"{self._timeout:.3g} seconds"
        )


def watch(timeout, on_lost):
    """Starts to watch the other processes of a run that this one has joined.

    It ends with the connection, which outlasts the training: JAX closes it when the program ends,
    and waits there until all processes have come so far.

    Args:
      timeout: seconds after which a silent process is lost; it is found within 1.4 times that.
      on_lost: function of a message, called once, from a thread of its own.
    """
    state = jax_distributed.global_state
    watcher = Watcher(state.client, state.process_id, state.num_processes, timeout)
    for loop, arguments in ((_keep_beating, (watcher,)), (_keep_looking, (watcher, on_lost))):
        threading.Thread(target=loop, args=arguments, daemon=True).start()


def _keep_beating(watcher):
    while jax.distributed.is_initialized():
        watcher.beat()
        time.sleep(watcher.seconds)


def _keep_looking(watcher, on_lost):
    before = time.monotonic()
    while jax.distributed.is_initialized():
        time.sleep(watcher.seconds)
        now = time.monotonic()
        message = watcher.look(now - before)
        before = now
        if message:
            on_lost(message)
            return
