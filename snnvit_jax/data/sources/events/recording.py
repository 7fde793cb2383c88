"""One recording of an event camera: when, where and in which direction the light changed."""

import dataclasses

import numpy as np

from snnvit_jax.data.decode import DamagedImage


class DamagedRecording(DamagedImage):
    """A recording that cannot be used; the message names its file and says why."""


@dataclasses.dataclass(frozen=True, eq=False)
class Events:
    """The events of one recording, in the order of the file.

    Attributes:
      t: [N] whole numbers, time in microseconds.
      x: [N] whole numbers, column; 0 is on the left.
      y: [N] whole numbers, row; 0 is at the top.
      p: [N] whole numbers, polarity: 1 where it became brighter, 0 where darker.
      sensor: (height, width) in pixels where the file says it, else None.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    sensor: tuple[int, int] | None = None

    def __len__(self):
        """Number of events."""
        return len(self.t)

    def part(self, chosen):
        """Returns some of the events.

        Args:
          chosen: a slice, an array of indices, or a mask [N].
        """
        return Events(self.t[chosen], self.x[chosen], self.y[chosen], self.p[chosen], self.sensor)


def sorted_by_time(events):
    """Returns the events by time; those of one time stay in the order of the file.

    Args:
      events: `Events`.
    """
    return events.part(np.argsort(events.t, kind="stable"))


def check_events(events, sensor, name):
    """Raises DamagedRecording, naming file, event and value, unless all events can be counted.

    Args:
      events: `Events`.
      sensor: (height, width) in pixels.
      name: what to call the recording, such as its path.
    """
    if not len(events):
        raise DamagedRecording(f"{name} is empty: it holds no event")
    if events.sensor not in (None, tuple(sensor)):
        raise DamagedRecording(
            f"{name} is of another size: its sensor has {_size(events.sensor)} pixels, "
            f"expected are {_size(sensor)}"
        )
    _check_range(events.x, "x", sensor[1], name, f"the sensor of {_size(sensor)} pixels")
    _check_range(events.y, "y", sensor[0], name, f"the sensor of {_size(sensor)} pixels")
    _check_range(events.p, "p", 2, name, "the polarities 0 and 1")
    _check_sorted(events.t, name)


def _size(sensor):
    return f"{sensor[1]}x{sensor[0]}"


def _check_range(values, key, stop, name, what):
    if values.min() >= 0 and values.max() < stop:
        return
    index = int(np.argmax((values < 0) | (values >= stop)))
    raise DamagedRecording(
        f"{name} is damaged: event {index} has {key}={int(values[index])}, outside {what}"
    )


def _check_sorted(t, name):
    back = t[1:] < t[:-1]
    if back.any():
        index = int(np.argmax(back)) + 1
        raise DamagedRecording(
            f"{name} is not sorted by time: t goes back from {int(t[index - 1])} to "
            f"{int(t[index])} at event {index}; data.events.sort=True sorts it"
        )
