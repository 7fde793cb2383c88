import tracemalloc

import event_files
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnvit_jax.data.sources.events.binning import SPLITS, bin_events, narrow, run_bounds, run_ends
from snnvit_jax.data.sources.events.frames import sensor_of, to_frames
from snnvit_jax.data.sources.events.recording import DamagedRecording, Events
from snnvit_jax.data.sources.events.settings import FrameSettings, frame_settings

H, W = event_files.SENSOR


def brute_force(events, time_steps, split_by):
    """Event by event, from the definition."""
    frames = np.zeros((time_steps, H, W, 2), int)
    t, N = events.t.tolist(), len(events)
    for i, (_, x, y, p) in enumerate(event_files.columns(events).tolist()):
        size = (t[-1] - t[0]) // time_steps if split_by == "time" else N // time_steps
        place = t[i] - t[0] if split_by == "time" else i
        frames[min(place // size, time_steps - 1) if size else time_steps - 1, y, x, p] += 1
    return frames


@given(st.integers(1, 300), st.integers(1, 20), st.sampled_from(sorted(SPLITS)), st.integers(0, 99))
def test_frames_are_the_brute_force_count(count, time_steps, split_by, seed):
    events = event_files.random_events(count, seed=seed)
    if split_by == "time" and events.t[-1] - events.t[0] < time_steps:
        return
    frames = to_frames(events, FrameSettings(time_steps, split_by), (H, W), "a")
    np.testing.assert_array_equal(frames, brute_force(events, time_steps, split_by))
    assert frames.sum() == count
    assert frames.dtype == np.uint8


def test_the_last_frame_takes_the_rest():
    t = np.array([5, 6, 7, 8, 9, 30, 31, 32, 33, 34, 36])
    np.testing.assert_array_equal(run_bounds(t, 4, "number"), [0, 2, 4, 6, 11])
    np.testing.assert_array_equal(run_bounds(t, 4, "time"), [0, 5, 5, 5, 11])  # 7 microseconds each
    np.testing.assert_array_equal(run_bounds(t, 3, "time"), [0, 5, 5, 11])
    np.testing.assert_array_equal(run_bounds(t[:2], 3, "number"), [0, 0, 0, 2])


def test_a_run_is_over_with_its_last_event():
    t = np.array([5, 6, 7, 8, 9, 30, 31, 32, 33, 34, 36])
    np.testing.assert_array_equal(run_ends(t, run_bounds(t, 4, "number")), [1, 3, 25, 31])
    np.testing.assert_array_equal(run_ends(t, run_bounds(t, 4, "time")), [4, 4, 4, 31])
    np.testing.assert_array_equal(run_ends(t[:2], run_bounds(t[:2], 3, "number")), [0, 0, 1])


def test_a_recording_shorter_than_its_frames_cannot_be_split_by_time():
    events = Events(*np.zeros((4, 5), int))
    with pytest.raises(
        DamagedRecording, match="a.bin lasts 0 microseconds, too short for 2 frames"
    ):
        to_frames(events, FrameSettings(2, "time"), (H, W), "a.bin")
    assert to_frames(events, FrameSettings(2), (H, W), "a.bin").sum() == 5


@pytest.mark.parametrize(
    ("largest", "dtype"), [(255, np.uint8), (256, np.uint16), (65_535, np.uint16), (65_536, "u4")]
)
def test_counts_have_the_smallest_type_that_holds_them(largest, dtype):
    assert narrow(np.array([0, largest])).dtype == dtype
    events = Events(*np.zeros((4, largest), int))
    frames = bin_events(events, np.array([0, largest]), (1, 1))
    assert frames.dtype == dtype
    assert frames.tolist() == [[[[largest, 0]]]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.int16])
def test_types_of_coordinates_do_not_overflow(dtype):
    events = Events(*np.array([[0, 1], [200 % 127, 3], [100, 2], [1, 0]]).astype(dtype))
    frames = bin_events(events, np.array([0, 2]), (128, 128))
    assert frames[0, 100, 73, 1] == frames[0, 2, 3, 0] == 1


def test_ten_million_events_need_bounded_memory():
    rng = np.random.default_rng(0)
    count, sensor = 10_000_000, (480, 640)
    x, y = (rng.integers(side, size=count, dtype=np.uint16) for side in sensor[::-1])
    events = Events(np.arange(count), x, y, rng.integers(2, size=count, dtype=np.uint8))
    tracemalloc.start()
    frames = to_frames(events, FrameSettings(20), sensor, "a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert frames.shape == (20, *sensor, 2)
    assert frames.sum() == count
    assert peak < 120e6  # the events are 130 MB, the counts 49 MB


CHANGES = {
    "x": (20, r"event 3 has x=20, outside the sensor of 20x12 pixels"),
    "y": (-1, r"event 3 has y=-1, outside the sensor of 20x12 pixels"),
    "p": (2, r"event 3 has p=2, outside the polarities 0 and 1"),
    "t": (0, r"t goes back from \d+ to 0 at event 3; data.events.sort=True sorts it"),
}


@pytest.mark.parametrize("key", CHANGES)
def test_bad_events_are_named_with_file_place_and_value(key):
    events = event_files.random_events(longest_pause=50)
    events = Events(events.t + 1, events.x, events.y, events.p)
    value, message = CHANGES[key]
    getattr(events, key)[3] = value
    with pytest.raises(DamagedRecording, match=f"cat/7.npz .*{message}"):
        to_frames(events, FrameSettings(4), (H, W), "cat/7.npz")


def test_a_recording_whose_time_goes_back_can_be_sorted():
    events = event_files.random_events()
    mixed = events.part(np.random.default_rng(1).permutation(len(events)))
    for split_by in SPLITS:
        settings = FrameSettings(4, split_by, sort=True)
        sorted_frames = to_frames(mixed, settings, (H, W), "a")
        if split_by == "time":  # by number, events of the same time may change places
            np.testing.assert_array_equal(sorted_frames, brute_force(events, 4, split_by))
        assert sorted_frames.sum() == len(events)


def test_empty_recordings_and_other_sizes_are_named():
    none = event_files.random_events().part([])
    with pytest.raises(DamagedRecording, match="a.bin is empty: it holds no event"):
        to_frames(none, FrameSettings(4), (H, W), "a.bin")
    other = Events(*np.zeros((4, 9), int), sensor=(34, 35))
    with pytest.raises(
        DamagedRecording, match="of another size: its sensor has 35x34 pixels, exp.*20x12"
    ):
        to_frames(other, FrameSettings(4), (H, W), "a.bin")
    frames = np.ones((4, 9, 7, 2), np.uint8)
    with pytest.raises(DamagedRecording, match=r"4 frames of 7x9 pixels; expected are 10 \(model"):
        to_frames(frames, FrameSettings(10), (9, 7), "a.npz")
    with pytest.raises(
        DamagedRecording, match="4 frames of 7x9 pixels; expected are 4 .* of 20x12"
    ):
        to_frames(frames, FrameSettings(4), (H, W), "a.npz")
    with pytest.raises(DamagedRecording, match="a.npz is empty: its frames hold no event"):
        to_frames(np.zeros_like(frames), FrameSettings(4), (9, 7), "a.npz")


def test_the_size_of_the_sensor_comes_from_settings_or_file():
    known = Events(*np.zeros((4, 9), int), sensor=(34, 35))
    assert sensor_of(known, FrameSettings(), "a") == (34, 35)
    assert sensor_of(known, FrameSettings(sensor=(1, 2)), "a") == (1, 2)
    assert sensor_of(np.zeros((10, 3, 4, 2)), FrameSettings(), "a") == (3, 4)
    with pytest.raises(DamagedRecording, match="a.bin does not say .* data.events.height"):
        sensor_of(event_files.random_events(), FrameSettings(), "a.bin")


@pytest.mark.parametrize("sensor", [(0, 4), (4, 99_999_999), (2**14 + 1, 4)])
def test_a_size_of_the_sensor_that_none_has_is_damage(sensor):
    events = Events(*np.zeros((4, 9), int), sensor=sensor)
    with pytest.raises(DamagedRecording, match=f"a.dat is damaged: .* {sensor[1]}x{sensor[0]} pix"):
        sensor_of(events, FrameSettings(), "a.dat")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split_by": "frames"}, "data.events.split_by='frames' must be one of number, time"),
        ({"split_order": "random"}, "data.events.split_order='random' must be one of number, name"),
        ({"height": 34}, "data.events.height=34 and data.events.width=None: give both or none"),
        (
            {"height": 0, "width": 3},
            "data.events.height=0 must be None or a whole number, at least 1",
        ),
    ],
)
def test_settings_that_do_not_fit_are_named(change, message):
    from snnvit_jax.runs.config import default_config

    settings = default_config().data.events
    settings.update(change)
    with pytest.raises(ValueError, match=message):
        frame_settings(4, settings)
