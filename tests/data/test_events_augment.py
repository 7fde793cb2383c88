import itertools

import numpy as np
import pytest

from snnvit_jax.data.augment import recording_pipeline, recordings
from snnvit_jax.runs.config import default_config

SHAPE = (3, 12, 16, 2)


def random_frames(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(1, 9, size=shape).astype(np.uint8)


RANDOM = {
    "flip": recordings.random_flip,
    "roll": lambda frames, rng: recordings.random_roll(frames, 3, rng),
    "shift": lambda frames, rng: recordings.random_shift(frames, 3, rng),
} | recordings.OPERATIONS


@pytest.mark.parametrize("name", RANDOM)
def test_one_draw_is_for_all_frames_of_a_recording(name):
    frames = random_frames()
    changed = 0
    for seed in range(12):
        whole = RANDOM[name](frames, np.random.default_rng(seed))
        for step in range(len(frames)):
            alone = RANDOM[name](frames[step : step + 1], np.random.default_rng(seed))
            np.testing.assert_array_equal(whole[step], alone[0])
        assert whole.shape == SHAPE
        assert whole.dtype == np.uint8
        changed += not np.array_equal(whole, frames)
    assert changed == 0 if name == "Identity" else changed >= 4
    np.testing.assert_array_equal(frames, random_frames())  # untouched


@pytest.mark.parametrize("name", RANDOM)
def test_no_event_is_invented(name):
    """Every operation moves or removes events of a channel, so no pixel has a new count."""
    frames = np.zeros(SHAPE, np.uint8)
    frames[:, 5, 7] = (3, 8)
    for seed in range(12):
        result = RANDOM[name](frames, np.random.default_rng(seed))
        assert set(np.unique(result[..., 0])) <= {0, 3}
        assert set(np.unique(result[..., 1])) <= {0, 8}


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, 0), (-2, 3), (0, -5), (12, 0), (-20, 99)])
def test_shift_moves_and_fills_with_nothing(down, right):
    frames, expected = random_frames(), np.zeros(SHAPE, np.uint8)
    for y, x in itertools.product(range(12), range(16)):
        if 0 <= y - down < 12 and 0 <= x - right < 16:
            expected[:, y, x] = frames[:, y - down, x - right]
    np.testing.assert_array_equal(recordings.shift(frames, down, right), expected)


def test_warp_takes_the_nearest_pixel_of_where_it_looks():
    frames = random_frames()
    np.testing.assert_array_equal(recordings.warp(frames, np.eye(2)), frames)
    half_turn = recordings.warp(frames, -np.eye(2))
    np.testing.assert_array_equal(half_turn, frames[:, ::-1, ::-1])
    square = random_frames(shape=(2, 9, 9, 2))
    np.testing.assert_array_equal(
        recordings.warp(square, [[0, -1], [1, 0]]), np.rot90(square, axes=(1, 2))[:, ::-1, ::-1]
    )
    sheared = recordings.warp(frames, [[1, 0], [0.5, 1]])  # a row moves by half of its height
    for y in range(12):
        moved = int(np.floor(0.5 + 0.5 * (y + 0.5 - 6)))
        row = recordings.shift(frames[:, y : y + 1], 0, -moved)
        np.testing.assert_array_equal(sheared[:, y : y + 1], row)


def test_magnitudes_are_thirty_one_even_steps():
    rng = np.random.default_rng(0)
    drawn = {round(recordings._magnitude(rng, 5.0), 9) for _ in range(1000)}
    assert sorted(drawn) == [round(value, 9) for value in np.linspace(-5, 5, 31)]


def test_cutout_is_a_square_inside_of_at_most_eleven_hundredths():
    frames = np.ones((2, 32, 32, 2), np.uint8)
    sides = set()
    for seed in range(200):
        gone = recordings.OPERATIONS["Cutout"](frames, np.random.default_rng(seed))[0, ..., 0] == 0
        rows, columns = (np.flatnonzero(gone.any(axis)) for axis in (1, 0))
        assert len(rows) == len(columns)
        assert gone.sum() == len(rows) ** 2  # one box without gaps
        sides.add(len(rows))
    assert sides == set(range(1, 12))  # the root of 0.001 to 0.11 of 32 * 32


def test_operations_are_drawn_evenly():
    frames = np.zeros(SHAPE, np.uint8)
    drawn = []
    names = {name: lambda f, rng, n=name: drawn.append(n) for name in recordings.OPERATIONS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recordings, "OPERATIONS", names)
        for seed in range(600):
            recordings.random_operation(
                frames, recordings.SETS["published"], np.random.default_rng(seed)
            )
    counts = [drawn.count(name) for name in names]
    assert min(counts) > 60
    assert "Cutout" not in recordings.SETS["published_no_cutout"]
    assert recordings.random_operation(frames, (), None) is frames


def test_halving_is_the_mean_of_two_by_two():
    frames = random_frames()
    expected = frames.reshape(3, 6, 2, 8, 2, 2).mean(axis=(2, 4))
    halved = recordings.resize(frames, (6, 8))
    np.testing.assert_allclose(halved, expected, rtol=1e-6)
    assert halved.dtype == np.float32
    assert recordings.resize(frames, (12, 16)) is frames


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (24, 32), (13, 9)])
def test_every_event_counts_the_same_at_any_size(size):
    frames = random_frames()
    resized = recordings.resize(frames, size)
    assert resized.shape == (3, *size, 2)
    np.testing.assert_allclose(
        resized.sum(axis=(1, 2)) * (12 / size[0]) * (16 / size[1]),
        frames.sum(axis=(1, 2)),
        rtol=1e-5,
    )


# From the configuration.


def settings(**changes):
    data = default_config().data
    data.update({"name": "events", "image_size": 16} | changes)
    return data


def test_evaluation_leaves_counts_as_they_are():
    frames = random_frames(shape=(3, 16, 16, 2))
    example = recording_pipeline.create_preprocess(settings())({"image": frames, "label": 4})
    np.testing.assert_array_equal(example["image"], frames)
    assert example["image"].dtype == np.float32
    assert example["label"] == np.int32(4)


def test_the_sum_of_both_polarities_can_be_a_third_channel():
    frames = random_frames(shape=(3, 16, 16, 2))
    preprocess = recording_pipeline.create_preprocess(settings(events={"sum_channel": True}))
    image = preprocess({"image": frames, "label": 4})["image"]
    assert image.shape == (3, 16, 16, preprocess.channels)
    np.testing.assert_array_equal(image[..., :2], frames)
    np.testing.assert_array_equal(image[..., 2], frames.sum(axis=-1))


def test_training_is_evaluation_where_nothing_is_drawn():
    example = {"image": random_frames(shape=(3, 32, 32, 2)), "label": 4}
    data = settings(events={"sum_channel": True})
    augmented = recording_pipeline.create_augment(data)(example, np.random.default_rng(0))
    plain = recording_pipeline.create_preprocess(data)(example)
    np.testing.assert_array_equal(augmented["image"], plain["image"])


def test_augmentation_is_a_function_of_example_and_generator():
    data = settings(
        flip=True,
        crop_padding=2,
        events={"roll": 5, "operations": "published", "sum_channel": True},
    )
    augment = recording_pipeline.create_augment(data)
    example = {"image": random_frames(shape=(3, 16, 16, 2)), "label": 4}
    images = [augment(example, np.random.default_rng(s))["image"] for s in (0, 0, 1, 2, 3)]
    np.testing.assert_array_equal(images[0], images[1])
    assert len({image.tobytes() for image in images}) == 4
    for image in images:
        np.testing.assert_array_equal(image[..., 2], image[..., :2].sum(axis=-1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"random_resized_crop": True}, "data.random_resized_crop=True is for images"),
        ({"erasing_probability": 0.25}, "data.erasing_probability=0.25 is for images"),
        ({"crop_fraction": 0.9}, "data.crop_fraction=0.9 is for images"),
        ({"mean": (0.5,)}, r"data.mean=\(0.5,\) is for images; leave it at \(0.0,\)"),
        ({"std": (0.5, 1.0)}, r"data.std=\(0.5, 1.0\) is for images"),
        ({"randaugment": {"num_ops": 2}}, "data.randaugment.num_ops=2 is for images; see data.ev"),
        ({"image_size": 0}, "data.image_size=0 must be a whole number, at least 1"),
        ({"crop_padding": 17}, "data.crop_padding=17 must be below data.image_size=16"),
        ({"events": {"roll": -1}}, "data.events.roll=-1 must be a whole number, at least 0"),
        ({"events": {"roll": 16}}, "data.events.roll=16 must be below data.image_size=16"),
        ({"events": {"operations": "all"}}, "data.events.operations='all' must be one of none, p"),
    ],
)
def test_settings_that_do_not_fit_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        recording_pipeline.create_augment(settings(**change))
