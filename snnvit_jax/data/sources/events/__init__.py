"""Recordings of event cameras: readers, binning into frames, splits, a cache, a simulated set.

Imports nothing else of this package but rules for values, the error for damaged images and the
listing of class folders.
"""

from snnvit_jax.data.sources.events.settings import FrameSettings, frame_settings
from snnvit_jax.data.sources.events.source import open_events

__all__ = ["FrameSettings", "frame_settings", "open_events"]
