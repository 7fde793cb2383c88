import collections
import dataclasses
import hashlib
import itertools
import math

import event_files
import numpy as np
import pytest

from snnvit_jax.data import sources
from snnvit_jax.data.sources import FrameSettings
from snnvit_jax.data.sources.events import digits_dvs, simulator
from snnvit_jax.data.sources.events.recording import check_events
from snnvit_jax.data.sources.events.simulator import Camera

CAMERA = Camera(sensor=(6, 5), magnification=1.3, mismatch=0.05, sampling=997, noise=0)
PATH = simulator.diamond(reach=1.5, samples=4, loops=2)
PICTURES = np.random.default_rng(0).integers(256, size=(3, 4, 3)).astype(np.uint8)


def light(picture, row, column, place, camera):
    """Bilinear interpolation with weights of 1 / 64, dark outside; of 255 * 64 * 64."""
    total = 0
    for (y, x), value in np.ndenumerate(picture):
        weight = 1
        for index, pixel, side, sensor, move in zip(
            (y, x), (row, column), picture.shape, camera.sensor, place, strict=True
        ):
            seen = (pixel + 0.5 - sensor / 2 - move) / camera.magnification + side / 2 - 0.5
            weight *= round(64 * max(0, 1 - abs(seen - index)))
        total += weight * int(value)
    return total


def pixel_events(picture, row, column, threshold, path, camera):
    """[(t, x, y, p)] of one pixel, from the definition of the camera, one event after the other."""
    brightest = 255 * 64 * 64
    logs = [
        round(
            4096 * math.log(light(picture, row, column, place, camera) / brightest + camera.floor)
        )
        for place in path
    ]
    events, remembered = [], logs[0]
    for step, (before, now) in enumerate(itertools.pairwise(logs)):
        while abs(now - remembered) >= threshold:
            up = now > remembered
            remembered += threshold if up else -threshold
            reached = camera.sampling * abs(remembered - before) // abs(now - before)
            events.append((step * camera.sampling + reached, column, row, int(up)))
    return events


def test_events_are_those_of_the_definition():
    thresholds = simulator.thresholds(CAMERA)
    for picture, events in zip(PICTURES, simulator.simulate(PICTURES, PATH, CAMERA), strict=True):
        expected = [
            event
            for (row, column), threshold in np.ndenumerate(thresholds)
            for event in pixel_events(picture, row, column, int(threshold), PATH, CAMERA)
        ]
        assert sorted(expected) == sorted(map(tuple, event_files.columns(events).tolist()))
        assert len(expected) > 100
        check_events(events, CAMERA.sensor, "a")
        assert set(events.p.tolist()) == {0, 1}


def test_thresholds_are_of_each_pixel_and_the_seed():
    same = simulator.thresholds(Camera(mismatch=0))
    assert set(same.ravel().tolist()) == {round(0.3 * 4096)}
    drawn = simulator.thresholds(Camera(sensor=(100, 100), mismatch=0.03)) / 4096
    assert abs(drawn.mean() - 0.3) < 2e-3
    assert abs(drawn.std() - 0.03) < 1e-3
    assert simulator.thresholds(Camera(mismatch=10)).min() == round(0.15 * 4096)
    assert (simulator.thresholds(Camera(seed=1)) != simulator.thresholds(Camera())).mean() > 0.9


def test_nothing_moves_no_events():
    still = np.zeros((9, 2))
    assert [len(events) for events in simulator.simulate(PICTURES, still, CAMERA)] == [0] * 3
    dark = np.zeros_like(PICTURES)
    assert [len(events) for events in simulator.simulate(dark, PATH, CAMERA)] == [0] * 3


def test_what_appears_and_goes_again_has_both_polarities():
    """A pixel's light comes back to where it was, so that its events cancel but for the last."""
    for events in simulator.simulate(PICTURES, PATH, CAMERA):
        frames = np.zeros((*CAMERA.sensor, 2), int)
        np.add.at(frames, (events.y, events.x, events.p), 1)
        assert np.abs(frames[..., 0] - frames[..., 1]).max() <= 1


def test_background_activity_is_added_to_what_is_seen():
    noisy = dataclasses.replace(CAMERA, noise=1000.0)
    seen = simulator.simulate(PICTURES, PATH, CAMERA)
    for plain, events in zip(seen, simulator.simulate(PICTURES, PATH, noisy), strict=True):
        check_events(events, CAMERA.sensor, "a")
        plain, events = (map(tuple, event_files.columns(e).tolist()) for e in (plain, events))
        added = collections.Counter(events)
        added.subtract(plain)
        assert min(added.values()) >= 0
        # 30 pixels, 32 steps of 997 microseconds, 1000 events a second
        assert abs(added.total() - 957) < 5 * 957**0.5
        t, x, y, p = np.array(list(added.elements())).T
        assert 0 <= t.min() < 997 < 31 * 997 < t.max() < 32 * 997
        assert (len(set(x)), len(set(y))) == (5, 6)
        assert 0.4 < p.mean() < 0.6


def test_the_path_is_a_diamond_gone_through_again_and_again():
    path = simulator.diamond(reach=2.0, samples=2, loops=2)
    loop = [(-2, 0), (-1, 1), (0, 2), (1, 1), (2, 0), (1, -1), (0, -2), (-1, -1)]
    np.testing.assert_array_equal(path, [*loop, *loop, loop[0]])


@pytest.fixture(scope="module")
def digits():
    return {split: sources.load("digits_dvs", split) for split in ("train", "test")}


def test_digits_dvs_are_the_digits_as_recordings(digits):
    for split, size in (("train", 1437), ("test", 360)):
        still = sources.load("digits", split)
        assert len(digits[split]) == size
        assert digits[split].channels == 2
        assert digits[split].class_names == still.class_names
        assert [e["label"] for e in digits[split].examples] == [e["label"] for e in still.examples]
    example = digits["train"].examples[0]["image"]
    assert example.shape == (10, 16, 16, 2)
    assert example.dtype == np.uint8
    with pytest.raises(ValueError, match="unknown split='val' of the digits"):
        sources.load("digits_dvs", "val")


def test_digits_dvs_are_the_same_everywhere(digits):
    images = np.stack([e["image"] for s in ("train", "test") for e in digits[s].examples])
    assert hashlib.sha256(images.tobytes()).hexdigest() == (
        "cd4c349f6cb2f4f5d98cd5ba8773368acc9c4b844b907a7f36d9528034b76281"
    )


def test_digits_dvs_follow_the_settings():
    source = sources.load("digits", "test")
    picture = source.examples[0]["image"][..., 0]
    (events,) = digits_dvs.record_digits(picture[None])
    for settings in (FrameSettings(16), FrameSettings(5, "time")):
        (example,) = digits_dvs.digits_dvs(source.examples[:1], settings)
        assert example["image"].shape == (settings.time_steps, 16, 16, 2)
        assert example["image"].sum() == len(events)
    with pytest.raises(
        ValueError, match="data.events.height=34 and width=34: the sensor of digits"
    ):
        digits_dvs.digits_dvs(source.examples[:1], FrameSettings(sensor=(34, 34)))


def test_parts_of_the_digits_are_recorded_alike():
    pictures = np.stack([e["image"][..., 0] for e in sources.load("digits", "test").examples[:140]])
    together, alone = (
        digits_dvs.record_digits(pictures),
        digits_dvs.record_digits(pictures[135:136]),
    )
    np.testing.assert_array_equal(event_files.columns(together[135]), event_files.columns(alone[0]))
