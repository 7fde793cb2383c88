"""What a file holds, events or frames, as the frames that a model sees."""

import numpy as np

from snnvit_jax.data.sources.events.binning import bin_events, run_bounds, run_ends
from snnvit_jax.data.sources.events.recording import DamagedRecording, check_events, sorted_by_time
from snnvit_jax.data.sources.events.settings import MOST_PIXELS


def sensor_of(recording, settings, name):
    """Returns the (height, width) of a recording's sensor, in pixels.

    Args:
      recording: `Events` or frames [T, H, W, 2].
      settings: `FrameSettings`; what it says about the sensor comes first.
      name: what to call the recording in an error.

    Raises:
      DamagedRecording: if neither says it.
    """
    if settings.sensor is not None:
        return tuple(settings.sensor)
    if isinstance(recording, np.ndarray):
        return recording.shape[1:3]
    if recording.sensor is None:
        raise DamagedRecording(
            f"{name} does not say how large its sensor is; set data.events.height and "
            "data.events.width"
        )
    height, width = recording.sensor
    if not (1 <= height <= MOST_PIXELS and 1 <= width <= MOST_PIXELS):
        raise DamagedRecording(
            f"{name} is damaged: it says that its sensor has {width}x{height} pixels; 1 to "
            f"{MOST_PIXELS} each way are possible"
        )
    return recording.sensor


def to_frames(recording, settings, sensor, name):
    """Returns the frames of a recording: counts [T, H, W, 2], channel 0 of polarity 0.

    Args:
      recording: `Events`, or frames [T, H, W, 2] that were prepared.
      settings: `FrameSettings`.
      sensor: (height, width) in pixels.
      name: what to call the recording in an error.

    Raises:
      DamagedRecording: if it is empty, of another size, or its events cannot be counted.
    """
    if isinstance(recording, np.ndarray):
        return _checked_frames(recording, (settings.time_steps, *sensor, 2), name)
    events, bounds = _cut(recording, settings, sensor, name)
    return bin_events(events, bounds, sensor)


def step_ends(recording, settings, sensor, name):
    """Returns when each time step of a recording is over: [T] microseconds, see `run_ends`.

    Args:
      recording: `Events`, or frames [T, H, W, 2] that were prepared.
      settings: `FrameSettings`.
      sensor: (height, width) in pixels.
      name: what to call the recording in an error.

    Returns:
      The times, or None for prepared frames, which do not say when their events happened.

    Raises:
      DamagedRecording: as `to_frames` does.
    """
    if isinstance(recording, np.ndarray):
        _checked_frames(recording, (settings.time_steps, *sensor, 2), name)
        return None
    events, bounds = _cut(recording, settings, sensor, name)
    return run_ends(events.t, bounds)


def _cut(recording, settings, sensor, name):
    """The events that are counted, and where each time step's run of them starts."""
    events = sorted_by_time(recording) if settings.sort else recording
    check_events(events, sensor, name)
    return events, run_bounds(events.t, settings.time_steps, settings.split_by, name)


def _checked_frames(frames, shape, name):
    if frames.shape != shape:
        T, H, W = frames.shape[:3]
        raise DamagedRecording(
            f"{name} holds {T} frames of {W}x{H} pixels; expected are {shape[0]} "
            f"(model.time_steps) of {shape[2]}x{shape[1]}"
        )
    if not frames.any():
        raise DamagedRecording(f"{name} is empty: its frames hold no event")
    return frames
