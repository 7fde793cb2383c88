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


def watch(timeout, on_lost):
    """Starts to watch the other processes of a run that this one has joined.

    Args:
      timeout: seconds after which a silent process is lost; it is found within 1.4 times that.
      on_lost: function of a message, called once from a thread of its own.
    """
    state = jax_distributed.global_state
    watcher = Watcher(state.client, state.process_id, state.num_processes, timeout, on_lost)
    for loop in (watcher.beat, watcher.look):
        threading.Thread(target=loop, name=f"peers-{loop.__name__}", daemon=True).start()


class Watcher:
    """Two loops, each for a thread: one that talks to process 0, and one that never waits for it.

    They end with the connection. It outlasts the training: JAX closes it when the program ends,
    and waits there until all processes have come so far.
    """

    def __init__(self, store, process, processes, timeout, on_lost):
        """Begins with nothing heard.

        Args:
          store: with the methods of JAX's client that count up and read numbers.
          process: which one this is.
          processes: how many there are.
          timeout: see `watch`.
          on_lost: see `watch`.
        """
        self._store, self._process, self._processes = store, process, processes
        self._timeout, self._on_lost = timeout, on_lost
        self._seconds = min(timeout / _BEATS_PER_TIMEOUT, _MAX_SECONDS_BETWEEN_BEATS)
        self._answer = None

    def beat(self):
        """Counts up this process's number and reads everyone's, again and again."""
        while jax.distributed.is_initialized():
            try:
                self._store.key_value_increment(f"{_KEY}{self._process}", 1)
                self._answer = _read(self._store)
            except jax.errors.JaxRuntimeError:  # no answer; `look` measures for how long
                pass
            time.sleep(self._seconds)

    def look(self):
        """Calls `on_lost` when a process has been silent for too long."""
        heard, before = nothing_heard(self._processes), time.monotonic()
        # Process 0 leaves last, or the others would find it gone before they know why.
        timeout = self._timeout + (2 * self._seconds if self._process == 0 else 0)
        while jax.distributed.is_initialized():
            time.sleep(self._seconds)
            answer, self._answer = self._answer, None
            now = time.monotonic()
            # If this process itself was stopped, the others are not to blame.
            heard = listen(heard, answer, min(now - before, 2 * self._seconds))
            before = now
            process = find_lost(heard, timeout)
            if process is not None:
                self._on_lost(
                    f"process {process} of {self._processes} has been silent for "
                    f"{timeout:.3g} seconds"
                )
                return


def _read(store):
    pairs = store.key_value_dir_get(_KEY)
    return {int(key.rpartition("/")[2]): int(number) for key, number in pairs}
