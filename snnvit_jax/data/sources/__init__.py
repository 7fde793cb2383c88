"""Where examples come from: digits, TensorFlow Datasets, folders of images, archives, recordings.

Imports `common` and `data.decode`.
"""

from snnvit_jax.data.sources.durations import milliseconds
from snnvit_jax.data.sources.events import FrameSettings, frame_settings
from snnvit_jax.data.sources.select import (
    DIGITS_TEST_EXAMPLES,
    EVENT_SETS,
    Source,
    check_complete,
    check_same_channels,
    check_same_classes,
    check_same_sensor,
    check_some_labels,
    first_of_each_class,
    load,
)

__all__ = [
    "DIGITS_TEST_EXAMPLES",
    "EVENT_SETS",
    "FrameSettings",
    "Source",
    "check_complete",
    "check_same_channels",
    "check_same_classes",
    "check_same_sensor",
    "check_some_labels",
    "first_of_each_class",
    "frame_settings",
    "load",
    "milliseconds",
]
