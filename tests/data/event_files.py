"""Small recordings of event cameras, and files of every format that hold them."""

import io

import numpy as np

from snnvit_jax.data.sources.events.recording import Events

SENSOR = (12, 20)  # height, width


def random_events(count=200, sensor=SENSOR, seed=0, longest_pause=50):
    """Events of a random camera, sorted by time."""
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.integers(0, longest_pause, size=count))
    y, x = (rng.integers(side, size=count) for side in sensor)
    return Events(t.astype(np.int64), x, y, rng.integers(2, size=count))


def columns(events):
    """[N, 4] whole numbers t, x, y, p."""
    return np.stack([np.asarray(getattr(events, key), np.int64) for key in "txyp"], axis=1)


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def events_npz(events):
    return npz(t=events.t, x=events.x, y=events.y, p=events.p)


def aer(events, overflow_before=()):
    """A .bin file; at some events the clock has passed 2^13 microseconds more than it shows."""
    data, late = bytearray(), 0
    for index, (t, x, y, p) in enumerate(columns(events).tolist()):
        if index in overflow_before:
            late += 1 << 13
            data += bytes([0, 240, 0, 0, 0])
        data += bytes([x, y]) + (p << 23 | (t - late)).to_bytes(3, "big")
    return bytes(data)


def dat(events, header="% Data file\n% Version 2\n", kind=(0, 8)):
    words = [(t, p << 28 | y << 14 | x) for t, x, y, p in columns(events).tolist()]
    return header.encode() + bytes(kind) + np.array(words, "<u4").tobytes()


def aedat2(events, chip=None, extra=()):
    """Addresses as the camera sends them; `extra` are (address, time) of what are no events."""
    lines = ["#!AER-DAT2.0", "# This is a raw AE data file - do not edit"]
    lines += [f"# AEChip: {chip}"] if chip else []
    lines += ["#End Of ASCII Header"]
    words = [(_address(x, y, p, chip), t) for t, x, y, p in columns(events).tolist()]
    header = "".join(f"{line}\r\n" for line in lines).encode()
    return header + np.array([*words, *extra], ">u4").tobytes()


def _address(x, y, p, chip):
    if chip is None or "DVS128" in chip:
        return (127 - x) << 8 | (127 - y) << 1 | (1 - p)
    return (259 - y) << 22 | (345 - x) << 12 | p << 11


def aedat3(events, per_packet=70, late=0, invalid=()):
    """Packets of polarity events, and between them packets of another kind."""
    data = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
    rows = columns(events).tolist()
    for start in range(0, len(rows), per_packet):
        words = [
            (x << 17 | y << 2 | p << 1 | (start + i not in invalid), t)
            for i, (t, x, y, p) in enumerate(rows[start : start + per_packet])
        ]
        data += packet(1, 8, np.array(words, "<u4").tobytes(), late)
        data += packet(0, 8, bytes(16))
    return data


def packet(kind, size, body, late=0):
    number = len(body) // size
    header = np.array([size, 4, late, number, number, number], "<i4")
    return np.array([kind, 0], "<i2").tobytes() + header.tobytes() + body
