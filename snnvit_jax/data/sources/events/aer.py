"""Events of 40 bits, the .bin files of N-MNIST and N-Caltech101 (Orchard et al., 2015).

    bits 39..32 x    31..24 y    23 polarity (1: brighter)    22..0 time in microseconds

An event with y = 240 is none: it says that the clock passed 2^13 microseconds more than the
events show, from here on.
"""

import numpy as np

from snnvit_jax.data.sources.events.recording import DamagedRecording, Events

_BYTES = 5
_OVERFLOW_ROW = 240
_OVERFLOW = 1 << 13


def read_aer(path):
    """Returns the `Events` of a .bin file.

    Args:
      path: of the file.

    Raises:
      DamagedRecording: if it does not hold whole events.
      OSError: if it cannot be read.
    """
    data = np.fromfile(path, np.uint8)
    if len(data) % _BYTES:
        raise DamagedRecording(
            f"{path} is damaged: {len(data)} bytes are not a whole number of {_BYTES}-byte events"
        )
    x, y, high, middle, low = data.reshape(-1, _BYTES).T
    t = (high & 0x7F).astype(np.int64) << 16 | middle.astype(np.int64) << 8 | low
    overflow = y == _OVERFLOW_ROW
    t += _OVERFLOW * np.cumsum(overflow)
    return Events(t, x, y, high >> 7).part(~overflow)
