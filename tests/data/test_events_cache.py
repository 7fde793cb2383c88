import concurrent.futures
import multiprocessing
import os

import event_files
import numpy as np
import pytest

from snnvit_jax.data import sources
from snnvit_jax.data.decode import DamagedImage
from snnvit_jax.data.sources import FrameSettings
from snnvit_jax.data.sources.events import cache, source

SPAWN = multiprocessing.get_context("spawn")
RECORDING = event_files.random_events()


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "kept/frames"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "set/train/a"
    folder.mkdir(parents=True)
    for index in range(4):
        (folder / f"{index}.bin").write_bytes(event_files.aer(RECORDING))
    return tmp_path / "set"


@pytest.fixture
def reads(monkeypatch):
    """Paths of the recordings that were read."""
    paths = []
    read = source.read_recording
    monkeypatch.setattr(source, "read_recording", lambda path: (paths.append(path), read(path))[1])
    return paths


def load(root, kept, **changes):
    settings = {"time_steps": 4, "sensor": event_files.SENSOR, "cache": kept and str(kept)}
    return sources.load("events", "train", root, FrameSettings(**settings | changes)).examples


def files(kept):
    return [path for path in kept.rglob("*") if path.is_file()]


def test_frames_are_made_once_and_stay_the_same(root, kept, reads):
    plain = [example["image"] for example in load(root, None)]
    examples = load(root, kept)
    first = [example["image"] for example in examples]
    reads.clear()
    again = [example["image"] for example in examples]
    assert not reads
    for images in zip(plain, first, again, strict=True):
        assert len({(image.dtype, image.tobytes()) for image in images}) == 1
    assert len(files(kept)) == 4


def test_other_settings_and_other_files_make_other_frames(root, kept):
    for changes in ({}, {"time_steps": 5}, {"split_by": "time"}, {"sort": True}):
        np.testing.assert_array_equal(
            load(root, kept, **changes)[0]["image"], load(root, None, **changes)[0]["image"]
        )
    assert len(files(kept)) == 4
    path = root / "train/a/0.bin"
    path.write_bytes(event_files.aer(event_files.random_events(seed=5)))
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(load(root, kept)[0]["image"], load(root, None)[0]["image"])
    assert len(files(kept)) == 5


def test_damaged_frames_are_made_again(root, kept, caplog):
    examples = load(root, kept)
    image = examples[0]["image"]
    (file,) = files(kept)
    for damaged in (b"", file.read_bytes()[:-9], event_files.npz(other=image)):
        file.write_bytes(damaged)
        np.testing.assert_array_equal(examples[0]["image"], image)
    assert caplog.text.count("made again") == 3
    examples[0]
    assert caplog.text.count("made again") == 3


def test_a_damaged_recording_is_not_kept(root, kept):
    (root / "train/a/3.bin").write_bytes(b"")
    with pytest.raises(DamagedImage, match="3.bin is empty"):
        load(root, kept)[3]
    assert not files(kept)


def test_what_cannot_be_written_leaves_nothing_behind(root, kept, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    examples = load(root, kept)
    monkeypatch.setattr(cache.np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space left"):
        examples[0]
    assert not files(kept)


def test_a_cache_that_cannot_be_used_is_named_before_work_starts(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"data.events.cache='.*/file' cannot be used"):
        load(root, tmp_path / "file")


@pytest.mark.parametrize("place", ["a/kept", "kept", "../link/train/x/y"])
def test_a_cache_among_the_recordings_is_refused(root, place):
    (root.parent / "link").symlink_to(root)
    chosen = root / "train" / place if "link" not in place else root / place
    with pytest.raises(ValueError, match=r"data.events.cache='.*' lies in .*set/train, where"):
        load(root, chosen)
    assert not chosen.exists()


def test_a_hidden_cache_or_one_beside_the_splits_is_no_class(root):
    for place in (root / "train/.kept", root / "kept"):
        for _ in range(2):
            source = load(root, place)
            assert source.class_names == ("a",)
            assert len([*source]) == 4


def test_many_can_share_a_cache(root, kept):
    expected = load(root, None)[0]["image"]
    with concurrent.futures.ProcessPoolExecutor(2, SPAWN) as pool:
        futures = [pool.submit(_read_all, root, kept) for _ in range(6)]
        for future in futures:
            for image in future.result():
                np.testing.assert_array_equal(image, expected)
    assert len(files(kept)) == 4


def _read_all(root, kept):
    return [example["image"] for example in load(root, kept)]
