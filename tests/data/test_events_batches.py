"""Recordings on their way into batches: order, resuming, workers, damage, experiment."""

import itertools

import event_files
import jax
import numpy as np
import pytest

from snnvit_jax.data import loader, sources
from snnvit_jax.data.augment import recording_pipeline
from snnvit_jax.data.decode import DamagedImage
from snnvit_jax.data.sources import FrameSettings
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import experiment
from snnvit_jax.runs.continuing import check_same_run
from snnvit_jax.runs.workdir import Workdir
from snnvit_jax.training.mixing import Mixing, mix

SHAPE = (4, 8, 8, 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two classes of five recordings each; one of them is damaged."""
    root = tmp_path_factory.mktemp("recordings")
    for name, index in itertools.product("ab", range(5)):
        events = event_files.random_events(200 + index, seed=index + 10 * (name == "b"))
        path = root / "train" / name / f"{index}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(event_files.aer(events))
    (root / "train/b/3.bin").write_bytes(b"")
    return root


def settings(**changes):
    data = config_lib.default_config().data
    data.update({"name": "events", "image_size": 8, "flip": True, "crop_padding": 1} | changes)
    data.events.update({"roll": 2, "operations": "published"})
    return data


def take(root, count, cache=None, start_step=0, **options):
    frames = FrameSettings(4, sensor=event_files.SENSOR, cache=cache)
    source = sources.load("events", "train", root, frames)
    options = loader.LoaderOptions(3, SHAPE, **{"on_damaged": "skip"} | options)
    augment = recording_pipeline.create_augment(settings())
    with loader.train_batches(source, augment, options, seed=0, start_step=start_step) as batches:
        return list(itertools.islice(batches, count))


def assert_same(a, b):
    for left, right in zip(a, b, strict=True):
        for name in ("image", "label"):
            np.testing.assert_array_equal(left[name], right[name])


@pytest.mark.parametrize(("start", "workers"), [(1, 0), (4, 0), (5, 2)])
def test_training_resumes_exactly_with_any_number_of_workers(root, tmp_path, start, workers):
    whole = take(root, 8)
    assert whole[0]["image"].shape == (3, *SHAPE)
    assert whole[0]["image"].dtype == np.float32
    cache = str(tmp_path) if workers else None
    assert_same(whole[start:], take(root, 8 - start, cache, start, workers=workers))


def test_a_damaged_recording_is_fatal_or_named_and_skipped(root, caplog):
    with pytest.raises(
        DamagedImage, match=r"b/3.bin is empty.*; remove it, or set data.on_damaged"
    ):
        take(root, 4, on_damaged="fatal")
    take(root, 4)
    assert "b/3.bin is empty" in caplog.text


def test_evaluation_leaves_a_gap_in_the_place_of_a_damaged_recording(root):
    source = sources.load("events", "train", root, FrameSettings(4, sensor=event_files.SENSOR))
    options = loader.LoaderOptions(5, SHAPE, on_damaged="skip")
    preprocess = recording_pipeline.create_preprocess(settings())
    with loader.eval_batches(source, preprocess, options) as batches:
        batches = list(batches)
    mask = np.concatenate([batch["mask"] for batch in batches])
    assert np.flatnonzero(~mask).tolist() == [8]
    images = np.concatenate([batch["image"] for batch in batches])
    assert images.shape == (10, *SHAPE)
    assert images[mask].any(axis=(1, 2, 3, 4)).all()
    assert not images[~mask].any()


@pytest.mark.parametrize("mixing", [Mixing(mixup_alpha=0.8), Mixing(cutmix_alpha=1.0)])
def test_all_frames_of_a_recording_are_mixed_alike(mixing):
    recordings = np.random.default_rng(0).normal(size=(4, 5, 6, 7, 2)).astype(np.float32)
    targets = np.eye(4, dtype=np.float32)
    for seed in range(5):
        key = jax.random.key(seed)
        mixed, shares = mix(key, recordings, targets, 0, mixing)
        assert mixed.shape == recordings.shape
        for step in range(5):
            images, own = mix(key, recordings[:, step], targets, 0, mixing)
            np.testing.assert_allclose(mixed[:, step], images, rtol=1e-6)
            np.testing.assert_allclose(shares, own, rtol=1e-6)


def configure(**data):
    config = config_lib.default_config()
    config.model.time_steps = 4
    config.model.embed_dim, config.model.num_heads, config.model.depth = 32, 2, 1
    config.data.update({"name": "digits_dvs", "image_size": 16} | data)
    return config


def test_an_experiment_knows_the_shape_of_recordings():
    built = experiment.build(configure(events={"sum_channel": True}))
    assert built.image_shape == (4, 16, 16, 3)
    example = built.preprocess(built.eval_source.examples[0])
    assert example["image"].shape == built.image_shape


@pytest.mark.parametrize(("size", "parts"), [(16, 1), (8, 4), (4, 16)])
def test_frames_are_whole_numbers_until_they_are_on_the_device(size, parts):
    built = experiment.build(configure(image_size=size))
    example = built.eval_source.examples[0]
    found = built.preprocess(example)["image"]
    assert (built.loader_options.dtype, found.dtype) == ("uint16", np.uint16)
    assert found.sum() == example["image"].sum()  # every event is counted once
    inner = recording_pipeline.create_preprocess(built.config.data)
    expected = inner(example)["image"]
    np.testing.assert_array_equal(jax.jit(built.normalization)(found), expected)
    assert found.nbytes == expected.nbytes / 2
    assert built.normalization.unit == parts


def test_frames_are_augmented_as_they_were():
    built = experiment.build(configure(image_size=8, flip=True, crop_padding=1))
    for seed in range(20):
        found, expected = (
            augment(built.train_source.examples[3], np.random.default_rng(seed))["image"]
            for augment in (built.augment, recording_pipeline.create_augment(built.config.data))
        )
        np.testing.assert_array_equal(built.normalization(found), expected)


def test_means_that_are_no_whole_numbers_stay_floating_point():
    built = experiment.build(configure(image_size=12))
    assert built.normalization is None
    assert built.preprocess(built.eval_source.examples[0])["image"].dtype == np.float32
    assert built.loader_options.dtype == "float32"


def test_a_count_that_a_batch_cannot_hold_is_refused():
    counts = recording_pipeline.AsCounts(recording_pipeline.PreprocessRecording((2, 2)))
    frames = np.full((1, 2, 2, 2), 65_535, np.uint32)
    assert counts({"image": frames, "label": 0})["image"].min() == 65_535
    with pytest.raises(DamagedImage, match="counts 65536 events in one frame, batches hold 65535"):
        counts({"image": frames + 1, "label": 0})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"erasing_probability": 0.5}, "data.erasing_probability=0.5 is for images"),
        ({"events": {"roll": -1}}, "data.events.roll=-1"),
        ({"events": {"split_by": "frames"}}, "data.events.split_by='frames'"),
        ({"name": "events"}, "data.dir=None must say where the recordings of 'events' are"),
    ],
)
def test_bad_settings_are_named_before_long_work(data, message):
    with pytest.raises(ValueError, match=message):
        experiment.build(configure(**data))


def test_a_run_of_recordings_cannot_go_on_with_another_split(tmp_path):
    config = configure()
    workdir = Workdir(tmp_path / "run")
    workdir.prepare(0)
    workdir.write_config(config, 0)
    for key, value in (("split_order", "name"), ("split_by", "time")):
        with pytest.raises(ValueError, match=f"data.events.{key}: number -> {value}"):
            check_same_run(workdir, configure(events={key: value}))


def test_the_report_shows_a_readable_recording_of_each_class(root):
    config = configure(name="events", dir=str(root), eval_split="train", image_size=16)
    config.batch_size = 2
    config.data.events.update({"height": 12, "width": 20})
    frames, names = experiment.build(config).some_recordings()
    assert names == ["a", "b"]
    assert np.shape(frames) == (2, 4, 16, 16, 2)
    digits = default_digits()
    assert experiment.build(digits).some_recordings() is None


def default_digits():
    config = config_lib.default_config()
    config.model.embed_dim, config.model.num_heads, config.model.depth = 32, 2, 1
    config.data.image_size = 8
    return config


def test_settings_of_recordings_survive_a_run_folder():
    config = configure(
        events={"height": 34, "width": 34, "cache": "kept", "operations": "published"}
    )
    again = config_lib.from_json(config_lib.to_json(config))
    assert config_lib.differences(config, again) == []
