"""`digits_dvs`: what a simulated event camera sees of the handwritten digits of scikit-learn.

The digits are real, the recordings are not: see `simulator` for the model of the camera. Each digit
moves for 0.2 seconds, twice around a diamond, magnified to 12x12 of the sensor's 16x16 pixels.
"""

import numpy as np

from snnvit_jax.data.sources.events.frames import step_ends, to_frames
from snnvit_jax.data.sources.events.simulator import Camera, diamond, simulate

CAMERA = Camera()
PATH = diamond(reach=2.0, samples=25, loops=2)
_AT_ONCE = 128  # recordings, to bound memory


def record_digits(pictures):
    """Returns the simulated recordings of digits, each `Events`.

    Args:
      pictures: uint8 [N, 8, 8].
    """
    parts = (pictures[start : start + _AT_ONCE] for start in range(0, len(pictures), _AT_ONCE))
    return [events for part in parts for events in simulate(part, PATH, CAMERA)]


def digits_dvs(digits, settings):
    """Returns digits as recordings: [{"image": counts [T, 16, 16, 2], "label": int}].

    Args:
      digits: [{"image": uint8 [8, 8, 1], "label": int}].
      settings: `FrameSettings`.

    Raises:
      ValueError: if the settings speak of another sensor.
    """
    if settings.sensor not in (None, CAMERA.sensor):
        raise ValueError(
            f"data.events.height={settings.sensor[0]!r} and width={settings.sensor[1]!r}: the "
            f"sensor of digits_dvs has {CAMERA.sensor[0]} rows and {CAMERA.sensor[1]} columns"
        )
    recordings = record_digits(np.stack([digit["image"][..., 0] for digit in digits]))
    return [
        {"image": to_frames(events, settings, CAMERA.sensor, f"digit {i}"), "label": d["label"]}
        for i, (events, d) in enumerate(zip(recordings, digits, strict=True))
    ]


def digits_step_ends(digits, settings):
    """Returns when each time step of digits as recordings is over: [N, T] microseconds.

    Args:
      digits: as for `digits_dvs`.
      settings: `FrameSettings`.
    """
    recordings = record_digits(np.stack([digit["image"][..., 0] for digit in digits]))
    return [
        step_ends(events, settings, CAMERA.sensor, f"digit {i}")
        for i, events in enumerate(recordings)
    ]
