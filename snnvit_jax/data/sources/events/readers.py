"""Which reader reads which file."""

import os

from snnvit_jax.data.sources.events.aedat import read_aedat
from snnvit_jax.data.sources.events.aer import read_aer
from snnvit_jax.data.sources.events.dat import read_dat
from snnvit_jax.data.sources.events.npz import read_npz

READERS = {
    ".npz": read_npz,
    ".bin": read_aer,
    ".dat": read_dat,
    ".aedat": read_aedat,
    ".aedat4": read_aedat,
}


def is_recording(name):
    """Returns whether a file has an extension of `READERS`, in upper or lower case.

    Args:
      name: of a file, with or without its folder.
    """
    return os.path.splitext(name)[1].lower() in READERS


def read_recording(path):
    """Returns what a file holds: `Events`, or frames [T, H, W, 2].

    Args:
      path: of a file with an extension of `READERS`.

    Raises:
      DamagedRecording: if it cannot be decoded.
      OSError: if it cannot be read.
    """
    return READERS[os.path.splitext(path)[1].lower()](path)
