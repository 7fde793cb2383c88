"""From events to frames: how many events of each polarity each pixel saw in each time step.

A recording of N events at times t[0..N-1] is cut into T runs, one for each time step, as
SpikingJelly does it (Fang et al., Science Advances 2023):

    by number   run j holds the events j n to (j + 1) n - 1 with n = floor(N / T)
    by time     run j holds those with t[0] + j d <= t < t[0] + (j + 1) d,
                d = floor((t[N-1] - t[0]) / T)

and the last run holds all that are left. A run of time in which nothing happened gives an empty
frame (where SpikingJelly fails).
"""

import itertools

import numpy as np

from snnvit_jax.data.sources.events.recording import DamagedRecording

_KINDS = (np.uint8, np.uint16, np.uint32)  # of counts
MOST = np.iinfo(_KINDS[-1]).max  # what the largest of them holds
_EVENTS_AT_ONCE = 1 << 20  # keeps what counting needs besides the frames below 20 MB


def _by_number(t, time_steps, name):
    return np.arange(time_steps) * (len(t) // time_steps)


def _by_time(t, time_steps, name):
    first, last = int(t[0]), int(t[-1])
    duration = (last - first) // time_steps
    if not duration:
        raise DamagedRecording(
            f"{name} lasts {last - first} microseconds, too short for {time_steps} frames by time"
        )
    return np.searchsorted(t, first + np.arange(time_steps) * duration, side="left")


SPLITS = {"number": _by_number, "time": _by_time}


def run_bounds(t, time_steps, split_by, name="the recording"):
    """Returns where each time step's run of events starts, and where the last one ends: [T + 1].

    Args:
      t: [N] microseconds, sorted, N >= 1.
      time_steps: T, >= 1.
      split_by: a key of `SPLITS`.
      name: what to call the recording in an error.

    Raises:
      DamagedRecording: if the recording is shorter than T microseconds and split by time.
    """
    return np.append(SPLITS[split_by](t, time_steps, name), len(t))


def run_ends(t, bounds):
    """Returns how long after its first event each time step's run of events is over: [T].

    What a model has seen by the end of a time step happened until then; so it says how much of a
    recording, in real time, an answer at that step needs.

    Args:
      t: [N] microseconds, sorted, N >= 1.
      bounds: [T + 1], see `run_bounds`.

    Returns:
      Microseconds, from the first event of the recording to the last one of the run, or of an
      earlier run where it is empty.
    """
    return t[np.maximum(np.asarray(bounds[1:]) - 1, 0)] - t[0]


def bin_events(events, bounds, sensor):
    """Counts events by time step, pixel and polarity.

    Memory besides the events and the result does not grow with their number.

    Args:
      events: `recording.Events`, checked by `recording.check_events`.
      bounds: [T + 1], see `run_bounds`.
      sensor: (height, width) in pixels.

    Returns:
      [T, H, W, 2] counts, in the smallest unsigned type that holds them; channel 0 counts events
      of polarity 0.
    """
    H, W = sensor
    counts = np.zeros((len(bounds) - 1, H * W * 2), np.uint32)
    for step, (start, stop) in enumerate(itertools.pairwise(bounds.tolist())):
        for at in range(start, stop, _EVENTS_AT_ONCE):
            part = events.part(slice(at, min(at + _EVENTS_AT_ONCE, stop)))
            x, y, p = (values.astype(np.int64) for values in (part.x, part.y, part.p))
            place = (y * W + x) * 2 + p
            counts[step] += np.bincount(place, minlength=H * W * 2).astype(np.uint32)
    return narrow(counts.reshape(-1, H, W, 2))


def narrow(counts):
    """Returns counts in the smallest unsigned type that holds all of them.

    Args:
      counts: whole numbers from 0 to `MOST`, of any shape and type.
    """
    largest = counts.max(initial=0)
    return counts.astype(next(kind for kind in _KINDS if largest <= np.iinfo(kind).max))
