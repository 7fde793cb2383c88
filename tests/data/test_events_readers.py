import event_files
import numpy as np
import pytest

from snnvit_jax.data.decode import DamagedImage
from snnvit_jax.data.sources.events.readers import READERS, is_recording, read_recording
from snnvit_jax.data.sources.events.recording import Events

EVENTS = event_files.random_events()
DAVIS = "eu.seebetter.ini.chips.davis.Davis346red"
LATE = Events(EVENTS.t + 40_000, EVENTS.x, EVENTS.y, EVENTS.p)

# name: (file name, bytes, what must be read, sensor)
FILES = {
    "events": ("a.npz", event_files.events_npz(EVENTS), EVENTS, None),
    "polarity as truth": (
        "a.npz",
        event_files.npz(t=EVENTS.t, x=EVENTS.x, y=EVENTS.y, p=EVENTS.p.astype(bool)),
        EVENTS,
        None,
    ),
    "bin": ("a.bin", event_files.aer(EVENTS), EVENTS, None),
    "bin whose clock overflows": ("a.bin", event_files.aer(LATE, (30, 99)), LATE, None),
    "dat": ("a.DAT", event_files.dat(EVENTS), EVENTS, None),
    "dat that tells its size": (
        "a.dat",
        event_files.dat(EVENTS, "% Height 480\n% Version 2\n% Width 640\n", (12, 8)),
        EVENTS,
        (480, 640),
    ),
    "dat without events": ("a.dat", event_files.dat(EVENTS.part([])), EVENTS.part([]), None),
    "aedat 2 of a DVS128": ("a.aedat", event_files.aedat2(EVENTS), EVENTS, (128, 128)),
    "aedat 2 of a named DVS128": (
        "a.aedat",
        event_files.aedat2(EVENTS, "ch.unizh.ini.jaer.chip.retina.DVS128", [(0x8001, 5)]),
        EVENTS,
        (128, 128),
    ),
    "aedat 2 of a DAVIS": (
        "a.aedat",
        event_files.aedat2(EVENTS, DAVIS, [(0x80000000, 5), (0x400, 6)]),
        EVENTS,
        (260, 346),
    ),
    "aedat 3": ("a.aedat", event_files.aedat3(EVENTS), EVENTS, None),
    "aedat 3 late in a long recording": (
        "a.aedat",
        event_files.aedat3(EVENTS, late=1),
        Events(EVENTS.t + (1 << 31), EVENTS.x, EVENTS.y, EVENTS.p),
        None,
    ),
    "aedat 3 with events taken back": (
        "a.aedat",
        event_files.aedat3(EVENTS, invalid=(0, 80)),
        EVENTS.part(np.delete(np.arange(len(EVENTS)), [0, 80])),
        None,
    ),
    "aedat 3 without events": (
        "a.aedat",
        event_files.aedat3(EVENTS.part([])),
        EVENTS.part([]),
        None,
    ),
}


def write(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", FILES)
def test_every_format_gives_the_events_that_were_written(tmp_path, kind):
    name, data, events, sensor = FILES[kind]
    read = read_recording(write(tmp_path, name, data))
    np.testing.assert_array_equal(event_files.columns(read), event_files.columns(events))
    assert read.sensor == sensor
    assert read.t.dtype == np.int64


def test_an_address_may_begin_like_a_line_of_the_header(tmp_path):
    row = 259 - (0x23 << 2)  # its address begins with the byte of "#"
    events = Events(*np.array([[7, 1, row, 1], [9, 2, row, 0]]).T)
    read = read_recording(write(tmp_path, "a.aedat", event_files.aedat2(events, DAVIS)))
    np.testing.assert_array_equal(event_files.columns(read), event_files.columns(events))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8, bool])
def test_frames_arrive_channels_last_in_the_smallest_type(tmp_path, dtype):
    frames = np.random.default_rng(0).integers(2, size=(4, 2, 3, 5)).astype(dtype)
    read = read_recording(write(tmp_path, "a.npz", event_files.npz(frames=frames)))
    np.testing.assert_array_equal(read, frames.transpose(0, 2, 3, 1))
    assert read.dtype == np.uint8


@pytest.mark.parametrize(("value", "dtype"), [(300, np.uint16), (70_000, np.uint32), (0.5, "f4")])
def test_frames_keep_large_counts_and_fractions(tmp_path, value, dtype):
    frames = np.full((1, 2, 3, 5), value, np.float64)
    read = read_recording(write(tmp_path, "a.npz", event_files.npz(frames=frames)))
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, frames.transpose(0, 2, 3, 1))


def small(**changes):
    arrays = {"t": np.arange(3), "x": np.arange(3), "y": np.arange(3), "p": np.ones(3, int)}
    return event_files.npz(**arrays | changes)


DAMAGED = {
    "empty.bin": (b"", None),  # no events at all; found when they are counted
    "short.bin": (b"\1\2\3\4", "4 bytes are not a whole number of 5-byte events"),
    "old.dat": (b"% Version 1\n\0\10", "no .dat file of version 2 .*version '1'"),
    "other.dat": (b"% Version 2\n\1\10", r"kind and size of events \(1, 8\)"),
    "header.dat": (b"% Version 2\n", r"kind and size of events \(\)"),
    "none.dat": (b"", "no .dat file"),
    "short.dat": (event_files.dat(EVENTS)[:-1], "are not a whole number of 8-byte events"),
    "none.aedat": (b"", "no AEDAT file of version 2.0, 3.1, 4.0"),
    "version.aedat": (b"#!AER-DAT1.0\r\n", "it starts with b'#!AER-DAT1.0"),
    "short2.aedat": (event_files.aedat2(EVENTS)[:-1], "are not a whole number of 8-byte events"),
    "chip.aedat": (event_files.aedat2(EVENTS, "a.ATIS304"), "was recorded by 'ATIS304'"),
    "short3.aedat": (event_files.aedat3(EVENTS)[:-1], "ends within the packet at byte"),
    "head3.aedat": (event_files.aedat3(EVENTS) + bytes(5), "ends within the packet at byte"),
    "size3.aedat": (event_files.aedat3(EVENTS) + event_files.packet(1, 9, bytes(9)),
                    "polarity events of 9 bytes, not 8"),
    "zero3.aedat": (event_files.aedat3(EVENTS) + bytes(28), "holds 0 of 0 events of 0 bytes"),
    "none.npz": (b"", "damaged or no .npz archive"),
    "short.npz": (event_files.events_npz(EVENTS)[:-50], "damaged or no .npz archive"),
    "bits.npz": (event_files.npz(x=np.zeros(3)), r"holds the arrays \['x'\]"),
    "lengths.npz": (small(x=np.arange(4)), "differ in length: t 3, x 4, y 3, p 3"),
    "float.npz": (small(y=np.ones(3)), r"'y' is float64 \[3\], not whole numbers"),
    "shape.npz": (small(p=np.ones((3, 1), int)), r"'p' is int64 \[3, 1\], not whole numbers"),
    "objects.npz": (event_files.npz(t=np.array([None])), "damaged or no .npz archive"),
    "channels.npz": (event_files.npz(frames=np.ones((4, 3, 5, 5))), r"\[4, 3, 5, 5\], not \[T, 2"),
    "axes.npz": (event_files.npz(frames=np.ones((4, 5, 5))), r"\[4, 5, 5\], not \[T, 2, H, W\]"),
    "negative.npz": (event_files.npz(frames=-np.ones((1, 2, 1, 1))), "not finite counts >= 0"),
    "many.npz": (event_files.npz(frames=np.full((1, 2, 1, 1), 2**40)), "1.09951e.12, above 42949"),
    "large.npz": (event_files.npz(frames=np.full((1, 2, 1, 1), 1e39)), "a count of 1e.39, above"),
    "part.npz": (event_files.npz(frames=np.full((1, 2, 1, 2), [0.5, 1e39])), "count of 1e.39, ab"),
    "nan.npz": (event_files.npz(frames=np.full((1, 2, 1, 1), np.nan)), "not finite counts >= 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, (_, message) in DAMAGED.items() if message])
def test_damage_names_file_and_value_and_can_be_skipped(tmp_path, name):
    path = write(tmp_path, name, DAMAGED[name][0])
    with pytest.raises(DamagedImage, match=DAMAGED[name][1]) as caught:
        read_recording(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", FILES)
def test_whatever_bytes_are_lost_or_changed_is_read_or_named(tmp_path, kind):
    name, data, _, _ = FILES[kind]
    rng = np.random.default_rng(0)
    for length in rng.integers(len(data), size=20):
        changed = bytearray(data)
        changed[length] ^= int(rng.integers(1, 256))
        for damaged in (data[:length], bytes(changed)):
            try:
                read_recording(write(tmp_path, name, damaged))
            except DamagedImage as error:
                assert name in str(error)


def test_aedat_4_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "aedat", None)
    with pytest.raises(ImportError, match=r"pip install 'snnvit_jax\[events\]'"):
        read_recording(write(tmp_path, "a.aedat4", b"#!AER-DAT4.0\r\n"))


def test_damaged_aedat_4_is_named(tmp_path):
    pytest.importorskip("aedat")
    with pytest.raises(DamagedImage, match="a.aedat4 is damaged"):
        read_recording(write(tmp_path, "a.aedat4", b"#!AER-DAT4.0\r\n\3\0\0\0abc"))


def test_a_missing_file_is_no_damaged_one(tmp_path):
    for extension in READERS:
        with pytest.raises(FileNotFoundError):
            read_recording(tmp_path / f"missing{extension}")


def test_other_files_do_not_count():
    assert is_recording("a.BIN")
    assert not any(map(is_recording, ("labels.csv", "bin", "LICENSE.txt")))
