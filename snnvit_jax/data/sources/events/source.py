"""Recordings of event cameras kept as files in a folder."""

import contextlib
import dataclasses
import operator
import os

import numpy as np

from snnvit_jax.common.paths import expanded
from snnvit_jax.data.sources.events.cache import FrameCache
from snnvit_jax.data.sources.events.frames import sensor_of, step_ends, to_frames
from snnvit_jax.data.sources.events.layouts import Listing, list_recordings
from snnvit_jax.data.sources.events.readers import read_recording
from snnvit_jax.data.sources.events.recording import DamagedRecording
from snnvit_jax.data.sources.events.settings import FrameSettings
from snnvit_jax.data.sources.walk import leads_nowhere

_PROBED = 5


@dataclasses.dataclass(frozen=True, eq=False)
class EventFolder:
    """Recordings by random access to {"image": counts [T, H, W, 2], "label": int}.

    Attributes:
      listing: files and labels.
      settings: how recordings become frames.
      sensor: (height, width) in pixels, of every recording.
      cache: where frames are kept, or None.
    """

    listing: Listing
    settings: FrameSettings
    sensor: tuple[int, int]
    cache: FrameCache | None = None
    channels = 2

    @property
    def class_names(self):
        """One for each label."""
        return self.listing.class_names

    def __len__(self):
        """Number of recordings."""
        return len(self.listing.paths)

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index):
        """Returns {"image", "label"}; raises `DamagedRecording` naming the path."""
        index = range(len(self))[operator.index(index)]
        return {"image": self._frames(index), "label": self.label(index)}

    def label(self, index):
        """Returns the label of a recording without reading it.

        Args:
          index: in [0, N).
        """
        return int(self.listing.labels[index])

    def path(self, index):
        """Returns the path of a recording's file.

        Args:
          index: in [0, N).
        """
        return os.path.join(self.listing.folder, self.listing.paths[index])

    def step_ends(self, index):
        """Returns when each time step of a recording is over, [T] microseconds, or None.

        See `frames.step_ends`; reads the recording itself, also where its frames are kept.

        Args:
          index: in [0, N).

        Raises:
          DamagedRecording: naming the path.
        """
        recording, name = read_one(self.path(index), self._window(index))
        return step_ends(recording, self.settings, self.sensor, name)

    def _frames(self, index):
        if self.cache is None:
            return self._make(index)
        settings, window = self.settings, self._window(index)
        about = settings.time_steps, settings.split_by, settings.sort, self.sensor, window
        with _links_checked(self.path(index)):
            return self.cache.get(self.path(index), about, lambda: self._make(index))

    def _make(self, index):
        recording, name = read_one(self.path(index), self._window(index))
        return to_frames(recording, self.settings, self.sensor, name)

    def _window(self, index):
        return self.listing.windows and self.listing.windows[index]


def open_events(root, split, settings):
    """Opens the recordings of one split and tries a few of them.

    Args:
      root: folder, see `layouts`.
      split: see `layouts.list_recordings`.
      settings: `FrameSettings`.

    Returns:
      An `EventFolder`.

    Raises:
      FileNotFoundError: if there is no such folder or split, naming those there are.
      ValueError: if there are no recordings in it, the cache cannot be used, or none of the
        recordings that are tried is good: then more is wrong than a damaged file.
    """
    listing = list_recordings(root, split, settings)
    _check_apart(listing, settings.cache)
    cache = None if settings.cache is None else FrameCache(settings.cache)
    if not listing.paths:
        raise ValueError(f"split {split!r} of {root} is empty")
    last, problem = len(listing.paths) - 1, None
    for index in sorted({last * step // (_PROBED - 1) for step in range(_PROBED)}):
        probed = EventFolder(listing.part([index]), settings, (0, 0))
        try:
            recording, name = read_one(probed.path(0), probed._window(0))
            sensor = sensor_of(recording, settings, name)
            to_frames(recording, settings, sensor, name)
            return EventFolder(listing, settings, sensor, cache)
        except DamagedRecording as error:
            problem = problem or error
    raise problem


def _check_apart(listing, cache):
    """Raises ValueError if what is kept in the cache would be taken for recordings."""
    if cache is None or listing.windows is not None:  # trials are listed by name
        return
    place, folder = expanded(cache).resolve(), listing.folder.resolve()
    if place.is_relative_to(folder) and not _is_hidden(place.relative_to(folder)):
        raise ValueError(
            f"data.events.cache={cache!r} lies in {folder}, where every folder is one of "
            "recordings; choose a folder elsewhere, or one whose name begins with a dot"
        )


def _is_hidden(path):
    return any(part.startswith(".") for part in path.parts)


@contextlib.contextmanager
def _links_checked(path):
    """Makes a damaged recording of one that is a link to nothing."""
    try:
        yield
    except OSError as error:
        if not leads_nowhere(path, error):
            raise
        raise DamagedRecording(
            f"{path} is damaged: a link to {os.readlink(path)!r}, where there is nothing"
        ) from error


def read_one(path, window=None):
    """Returns (events or frames of a recording, what to call it).

    Args:
      path: of its file.
      window: (start, end) in microseconds of the recording in the file; None for all of it.

    Raises:
      DamagedRecording: if it cannot be decoded.
    """
    with _links_checked(path):
        recording = read_recording(path)
    if window is None:
        return recording, str(path)
    start, end = window
    if isinstance(recording, np.ndarray):
        raise DamagedRecording(
            f"{path} holds frames, which do not say when their events happened; the trial from "
            f"{start} to {end} microseconds can be cut from events only"
        )
    chosen = (recording.t >= start) & (recording.t < end)
    return recording.part(chosen), f"{path} from {start} to {end} microseconds"
