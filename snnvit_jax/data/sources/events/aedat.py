"""AEDAT, the files of jAER, cAER and DV, in versions 2.0, 3.1 and 4.

The first two are read here, because packages that read them bring much that has nothing to do with
it; the last one by the package `aedat`. Formats: "AEDAT file formats" of the inivation group.
"""

import pathlib
import re

import numpy as np

from snnvit_jax.data.sources.events.recording import DamagedRecording, Events
from snnvit_jax.extras import needed

_VERSION = re.compile(rb"#!AER-DAT(\d\.\d)")
_HEADER_ENDS = (b"#End Of ASCII Header", b"#!END-HEADER")
_POLARITY_EVENT = 1
_PACKET_HEADER = np.dtype(
    [
        *(("type", "<i2"), ("source", "<i2"), ("size", "<i4"), ("offset", "<i4")),
        *(("overflow", "<i4"), ("capacity", "<i4"), ("number", "<i4"), ("valid", "<i4")),
    ]
)


def read_aedat(path):
    """Returns the `Events` of an AEDAT file.

    Args:
      path: of the file.

    Raises:
      DamagedRecording: if it is cut short, of another version, or of a camera that is not known.
      MissingExtraError: for version 4 without the package that reads it.
      OSError: if it cannot be read.
    """
    data = pathlib.Path(path).read_bytes()
    match = _VERSION.match(data)
    version = match[1].decode() if match else None
    if version not in _VERSIONS:
        raise DamagedRecording(
            f"{path} is damaged or no AEDAT file of version {', '.join(_VERSIONS)}: "
            f"it starts with {data[:14]!r}"
        )
    return _VERSIONS[version](data, path)


def _header(data):
    """The lines at the start that begin with "#", and the place after them."""
    lines, place = [], 0
    while data[place : place + 1] == b"#":
        end = data.find(b"\n", place) + 1 or len(data)
        lines.append(data[place:end])
        place = end
        if lines[-1].startswith(_HEADER_ENDS):  # what follows may begin with "#" by chance
            break
    return lines, place


def _read_version_2(data, path):
    """Address and time of each event, 32 bits each, the highest byte first."""
    lines, start = _header(data)
    if (len(data) - start) % 8:
        raise DamagedRecording(
            f"{path} is damaged: {len(data) - start} bytes are not a whole number of 8-byte events"
        )
    address, t = np.frombuffer(data, ">u4", offset=start).reshape(-1, 2).T.astype(np.uint32)
    chips = [
        line.split(b":", 1)[1].strip().decode("latin-1") for line in lines if b"AEChip:" in line
    ]
    chip = chips[0].rsplit(".")[-1] if chips else "DVS128"
    for pattern, decode in _CHIPS.items():
        if re.match(pattern, chip):
            return decode(address, t.astype(np.int64))
    raise DamagedRecording(
        f"{path} was recorded by {chip!r}; known cameras: DVS128, DAVIS 240, 346"
    )


def _dvs128(address, t):
    """Decodes the addresses of a DVS128, whose picture SpikingJelly turns for CIFAR10-DVS.

    Bit 15 marks events that are none of a pixel.
    """
    x, y = (address >> 1 & 0x7F, address >> 8 & 0x7F)
    events = Events(
        t,
        x=(127 - y).astype(np.uint8),
        y=(127 - x).astype(np.uint8),
        p=(1 - (address & 1)).astype(np.uint8),
        sensor=(128, 128),
    )
    return events.part(address & 0x8000 == 0)


def _davis(height, width):
    """Decodes the addresses of a DAVIS, whose rows and columns start below on the right.

    Bit 31 marks pictures and inertial measurements, bit 10 events from outside.
    """

    def decode(address, t):
        events = Events(
            t,
            x=(width - 1 - (address >> 12 & 0x3FF).astype(np.int32)),
            y=(height - 1 - (address >> 22 & 0x1FF).astype(np.int32)),
            p=(address >> 11 & 1).astype(np.uint8),
            sensor=(height, width),
        )
        return events.part(address & 0x80000400 == 0)

    return decode


_CHIPS = {
    "(?i)dvs128|tmpdiff128": _dvs128,
    "(?i)davis346": _davis(260, 346),
    "(?i)davis240": _davis(180, 240),
}


def _read_version_3(data, path):
    """Packets of events of one kind; those of polarity hold data and time, 32 bits each."""
    _, place = _header(data)
    packets = []
    while place < len(data):
        header, place = _packet_header(data, place, path), place + _PACKET_HEADER.itemsize
        if header["type"] == _POLARITY_EVENT:
            words = np.frombuffer(data, "<u4", 2 * int(header["number"]), place).reshape(-1, 2)
            packets.append((words, int(header["overflow"]) << 31))
        place += int(header["capacity"]) * int(header["size"])
    if not packets:
        packets = [(np.zeros((0, 2), np.uint32), 0)]
    words = np.concatenate([words[:, 0] for words, _ in packets])
    t = np.concatenate([words[:, 1].astype(np.int64) + late for words, late in packets])
    events = Events(
        t,
        x=(words >> 17 & 0x7FFF).astype(np.uint16),
        y=(words >> 2 & 0x7FFF).astype(np.uint16),
        p=(words >> 1 & 1).astype(np.uint8),
    )
    return events.part(words & 1 == 1)  # the others were taken back


def _packet_header(data, place, path):
    if len(data) - place < _PACKET_HEADER.itemsize:
        raise DamagedRecording(f"{path} is damaged: it ends within the packet at byte {place}")
    header = np.frombuffer(data, _PACKET_HEADER, 1, place)[0]
    number, capacity, size = (int(header[key]) for key in ("number", "capacity", "size"))
    if not 0 <= number <= capacity or size < 1:
        raise DamagedRecording(
            f"{path} is damaged: the packet at byte {place} holds {number} of {capacity} events "
            f"of {size} bytes"
        )
    if header["type"] == _POLARITY_EVENT and size != 8:
        raise DamagedRecording(
            f"{path} is damaged: the packet at byte {place} has polarity events of {size} bytes, "
            "not 8"
        )
    if place + _PACKET_HEADER.itemsize + capacity * size > len(data):
        raise DamagedRecording(f"{path} is damaged: it ends within the packet at byte {place}")
    return header


def _read_version_4(data, path):
    """Compressed packets; the first stream of events counts."""
    with needed("events"):
        import aedat
    try:
        decoder = aedat.Decoder(str(path))
        streams = {n: s for n, s in decoder.id_to_stream().items() if s["type"] == "events"}
        first = min(streams, default=None)
        packets = [packet["events"] for packet in decoder if packet["stream_id"] == first]
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # what the package raises for damage is no Exception
        raise DamagedRecording(f"{path} is damaged: {error}") from error
    if not packets:
        raise DamagedRecording(f"{path} is empty: it holds no event")
    events = np.concatenate(packets)
    sensor = streams[first]["height"], streams[first]["width"]
    t, x, y = events["t"].astype(np.int64), events["x"], events["y"]
    return Events(t, x, y, events["on"].astype(np.uint8), sensor)


_VERSIONS = {"2.0": _read_version_2, "3.1": _read_version_3, "4.0": _read_version_4}
