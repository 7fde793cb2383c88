"""Recordings of event cameras: readers, binning into frames, splits, a cache, a simulated set.

Imports `common`, `data.decode`, `data.sources.classes`, `data.sources.splits` and
`data.sources.walk`.
"""

from snnvit_jax.data.sources.events.settings import FrameSettings, frame_settings
from snnvit_jax.data.sources.events.source import open_events

__all__ = ["FrameSettings", "frame_settings", "open_events"]
