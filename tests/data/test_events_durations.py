"""How much of a recording an answer needs, in real time, and what early exit says of it."""

import json
import pathlib

import by_path
import event_files
import numpy as np
import pytest

import snnvit_jax as snn
from snnvit_jax.data import sources
from snnvit_jax.data.decode import DamagedImage
from snnvit_jax.data.sources import FrameSettings

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"
T = 4


def recordings():
    """Of lengths that differ a lot."""
    return [
        event_files.random_events(100 + 50 * seed, seed=seed, longest_pause=40 * (seed + 1))
        for seed in range(3)
    ]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "test/cat"
    folder.mkdir(parents=True)
    for index, events in enumerate(recordings()):
        (folder / f"{index}.npz").write_bytes(event_files.events_npz(events))
    return tmp_path


def times_of(root, split_by="time", split="test", **options):
    settings = FrameSettings(T, split_by, sensor=event_files.SENSOR)
    return sources.milliseconds("events", split, root, settings, **options)


def test_steps_by_time_last_equally_long_up_to_a_pause(root):
    found = times_of(root)
    assert found.shape == (T, 3)
    for events, ends in zip(recordings(), found.T * 1000, strict=True):
        since = events.t - events.t[0]
        for step, end in enumerate(ends[:-1], start=1):
            limit = step * (since[-1] // T)
            assert end == since[since < limit].max()
        assert ends[-1] == since[-1]


def test_steps_by_number_end_with_their_last_event(root):
    found = times_of(root, "number")
    for events, ends in zip(recordings(), found.T * 1000, strict=True):
        last = [step * (len(events) // T) - 1 for step in (1, 2, 3)]
        assert ends.tolist() == (events.t[[*last, -1]] - events.t[0]).tolist()


def test_a_damaged_recording_is_left_out_as_in_an_evaluation(root):
    whole = times_of(root)
    (root / "test/cat/1.npz").write_bytes(b"no archive")
    np.testing.assert_array_equal(times_of(root, on_damaged="skip"), whole[:, [0, 2]])
    with pytest.raises(DamagedImage, match=r"1\.npz"):
        times_of(root)


def test_prepared_frames_and_images_do_not_say_it(root):
    frames = np.ones((T, 2, *event_files.SENSOR))
    (root / "test/cat/1.npz").write_bytes(event_files.npz(frames=frames))
    assert times_of(root) is None
    assert sources.milliseconds("digits", "test") is None


def test_digits_dvs_is_as_long_as_was_published():
    published = json.loads((EXPERIMENTS / "digits_dvs/real_time.json").read_text())
    found = sources.milliseconds("digits_dvs", "test", frames=FrameSettings(10))
    assert found.shape == (10, 360)
    np.testing.assert_allclose(found.mean(1), published["stop"]["milliseconds"], rtol=1e-6)


# ---------------------------------------------------------------- what the experiment says


@pytest.fixture(scope="module")
def measure():
    path = EXPERIMENTS / "early_exit/measure.py"
    return by_path.module(path)


def running(confident_after):
    """Running logits [T, B, 2] of recordings that are clear after so many steps, all of class 1."""
    steps = np.arange(1, T + 1)[:, None] >= np.array(confident_after)
    return np.stack([np.zeros(steps.shape), np.where(steps, 20.0, 0.1)], axis=-1)


def test_early_exit_says_milliseconds_where_it_knows_them(measure, root, capsys):
    times, schedule = times_of(root), snn.TimeStepSchedule({"a": [1] * T})
    exits = np.array([1, 3, 4])
    logits, labels = running(exits), np.ones(3, int)
    found = measure.result(logits, labels, schedule, times)
    np.testing.assert_allclose(found["milliseconds"], times.mean(1))
    strict = found["sweeps"]["confidence"]  # the first threshold, 0.999
    assert strict["milliseconds"][0] == pytest.approx(times[exits - 1, np.arange(3)].mean())
    assert strict["average_time_steps"][0] == pytest.approx(exits.mean())
    measure.print_table({"run": found})
    lines = capsys.readouterr().out.splitlines()
    assert all(line.endswith(" ms of recording") for line in lines)
    assert f"no exit 1.0000 at 4.000 steps, {times[-1].mean():.1f} ms of recording" in lines[0]

    unknown = measure.result(logits, labels, schedule, None)
    assert "milliseconds" not in unknown | unknown["sweeps"]["confidence"]
    measure.print_table({"run": unknown})
    assert "ms" not in capsys.readouterr().out
