"""Where examples come from: digits, TensorFlow Datasets, folders of images, archives.

Imports nothing else of this package.
"""

from snnvit_jax.data.sources.select import (
    DIGITS_TEST_EXAMPLES,
    Source,
    check_complete,
    check_same_channels,
    check_same_classes,
    check_some_labels,
    load,
)

__all__ = [
    "DIGITS_TEST_EXAMPLES",
    "Source",
    "check_complete",
    "check_same_channels",
    "check_same_classes",
    "check_some_labels",
    "load",
]
