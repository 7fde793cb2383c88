"""The .dat files of Prophesee's cameras and tools, version 2, such as those of N-Cars.

Lines that begin with "%", two bytes with kind and size of an event, and events of 64 bits:

    time in microseconds, 32 bits    bits 31..28 polarity    27..14 y    13..0 x

the lowest byte first.
"""

import pathlib
import re

import numpy as np

from snnvit_jax.data.sources.events.recording import DamagedRecording, Events

_EVENT = np.dtype([("t", "<u4"), ("data", "<u4")])
_KINDS = (0, 12)  # both are changes of contrast


def read_dat(path):
    """Returns the `Events` of a .dat file.

    Args:
      path: of the file.

    Raises:
      DamagedRecording: if it is cut short, of another version, or holds no changes of contrast.
      OSError: if it cannot be read.
    """
    data = pathlib.Path(path).read_bytes()
    header, place = _header(data)
    version = re.search(r"% Version (\S+)", header)
    kind = tuple(data[place : place + 2])
    if version is None or version[1] != "2" or len(kind) < 2 or kind[0] not in _KINDS:
        raise DamagedRecording(
            f"{path} is damaged or no .dat file of version 2 with changes of contrast: "
            f"version {version and version[1]!r}, kind and size of events {kind}"
        )
    length = len(data) - place - 2
    if kind[1] != _EVENT.itemsize or length % _EVENT.itemsize:
        raise DamagedRecording(
            f"{path} is damaged: {length} bytes are not a whole number of 8-byte events"
        )
    events = np.frombuffer(data, _EVENT, offset=place + 2)
    words = events["data"]
    return Events(
        events["t"].astype(np.int64),
        x=(words & 0x3FFF).astype(np.uint16),
        y=(words >> 14 & 0x3FFF).astype(np.uint16),
        p=(words >> 28).astype(np.uint8),
        sensor=_sensor(header),
    )


def _header(data):
    place = 0
    while data[place : place + 1] == b"%":
        place = data.find(b"\n", place) + 1 or len(data)
    return data[:place].decode("latin-1"), place


def _sensor(header):
    sides = [re.search(rf"% {side} (\d+)", header) for side in ("Height", "Width")]
    return tuple(int(side[1]) for side in sides) if all(sides) else None
