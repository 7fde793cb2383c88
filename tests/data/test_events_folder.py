import dataclasses
import hashlib
import os
import pickle

import event_files
import numpy as np
import pytest

from snnvit_jax.data import sources
from snnvit_jax.data.decode import DamagedImage
from snnvit_jax.data.sources import FrameSettings
from snnvit_jax.data.sources.events import fixed_split
from snnvit_jax.data.sources.events.frames import to_frames
from snnvit_jax.data.sources.events.trials import GESTURES

SETTINGS = FrameSettings(4, sensor=event_files.SENSOR)


def recording(seed):
    return event_files.random_events(100 + seed, seed=seed)


def frames_of(seed, settings=SETTINGS):
    return to_frames(recording(seed), settings, event_files.SENSOR, "a")


def fill(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def load(root, split="train", settings=SETTINGS):
    return sources.load("events", split, root, settings)


def assert_seeds(source, seeds, settings=SETTINGS):
    assert len(source) == len(seeds)
    for example, seed in zip(source.examples, seeds, strict=True):
        np.testing.assert_array_equal(example["image"], frames_of(seed, settings))


@pytest.fixture
def root(tmp_path):
    """Two classes in two splits, in several formats, and much that does not count."""
    fill(
        tmp_path / "train",
        {
            "cat/1.npz": event_files.events_npz(recording(1)),
            "cat/2.bin": event_files.aer(recording(2)),
            "ant/deep/3.dat": event_files.dat(recording(3)),
            "cat/labels.csv": b"",
            "cat/.4.bin": b"",
            ".git/5.bin": b"",
        },
    )
    fill(tmp_path / "test", {"cat/6.aedat": event_files.aedat3(recording(6)), "ant/7.bin": b""})
    return tmp_path


def test_recordings_come_by_class_and_path(root):
    source = load(root)
    assert source.class_names == ("ant", "cat")
    assert source.channels == 2
    assert [source.examples.label(i) for i in range(3)] == [0, 1, 1]
    assert [e["label"] for e in source.examples] == [0, 1, 1]
    assert_seeds(source, [3, 1, 2])
    assert source.examples[np.int64(-1)]["label"] == 1
    with pytest.raises(IndexError):
        source.examples[3]


def test_links_are_followed_and_a_link_to_nothing_is_a_damaged_recording(root):
    (root / "test/cat/8.bin").symlink_to(root / "train/cat/2.bin")
    (root / "test/cat/9.bin").symlink_to(root / "nowhere.bin")
    (root / "linked").symlink_to(root / "train", target_is_directory=True)
    assert_seeds(load(root, "linked"), [3, 1, 2])
    source = load(root, "test")
    np.testing.assert_array_equal(source.examples[2]["image"], frames_of(2))
    for settings in (SETTINGS, dataclasses.replace(SETTINGS, cache=str(root / "kept"))):
        with pytest.raises(DamagedImage, match=r"9.bin is damaged: a link to '.*nowhere.bin'"):
            load(root, "test", settings).examples[3]


def test_pickled_recordings_are_read_from_the_same_files(root):
    source = pickle.loads(pickle.dumps(load(root)))
    assert_seeds(source, [3, 1, 2])


def test_a_damaged_recording_is_named_when_it_is_read(root):
    source = load(root, "test")  # opens: one of the two is good
    assert source.examples[1]["label"] == 1
    with pytest.raises(DamagedImage, match=r"ant/7.bin is empty"):
        source.examples[0]


def test_a_set_in_which_no_recording_is_good_is_refused_at_once(root):
    with pytest.raises(ValueError, match=r"cat/6.aedat .*x=\d+, outside the sensor of 4x3 pixels"):
        (root / "test/ant/7.bin").write_bytes(event_files.aer(recording(7)))
        load(root, "test[:1]", FrameSettings(4, sensor=(3, 4)))
    with pytest.raises(ValueError, match=r"3.dat does not say .* set data.events.height"):
        load(root, settings=FrameSettings(4))


def test_splits_of_other_sensors_are_told_apart(tmp_path):
    for split, header in (
        ("train", "% Height 12\n% Width 20\n"),
        ("test", "% Height 40\n% Width 30\n"),
    ):
        data = event_files.dat(recording(1), header + "% Version 2\n")
        fill(tmp_path, {f"{split}/cat/1.dat": data})
    parts = [load(tmp_path, split, FrameSettings(4)) for split in ("train", "test")]
    sources.check_same_sensor(parts[0], parts[0])
    with pytest.raises(ValueError, match="'train' was recorded with 20x12 pixels and .* 30x40"):
        sources.check_same_sensor(*parts)


def test_folders_that_are_not_there_are_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*/nowhere"):
        load(root / "nowhere")
    with pytest.raises(
        FileNotFoundError, match=r"no folder .*/val for split 'val'; .* test, train"
    ):
        load(root, "val")
    with pytest.raises(ValueError, match="data.dir=None must say where the recordings of 'events'"):
        load(None)
    (root / "train/empty").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*train/empty holds no recordings"):
        load(root)
    (root / "only").mkdir()
    with pytest.raises(ValueError, match=r"only holds no class folders; expected is"):
        load(root, "only")
    with pytest.raises(FileNotFoundError, match=r"no folder .*only/train .* holds no folders"):
        load(root / "only")


def test_parts_of_a_split_are_disjoint_and_complete(tmp_path):
    names = {f"train/{c}/{i}.bin": event_files.aer(recording(i)) for c in "ab" for i in range(10)}
    fill(tmp_path, names)
    parts = [load(tmp_path, f"train[{cut}]") for cut in (":75%", "75%:")]
    paths = [{p.examples.path(i) for i in range(len(p))} for p in parts]
    assert [len(p) for p in parts] == [15, 5]
    assert paths[0] | paths[1] == {os.path.join(tmp_path, name) for name in names}
    assert {e["label"] for e in parts[1].examples} == {0, 1}
    with pytest.raises(ValueError, match="is empty"):
        load(tmp_path, "train[:0]")


@pytest.mark.parametrize(
    ("folder", "steps"),
    [("frames_number_4_split_by_number", 4), ("events_np", 5), ("", 4)],
)
def test_spikingjelly_folders_are_found_from_their_root(tmp_path, folder, steps):
    frames = frames_of(1).transpose(0, 3, 1, 2).astype(float)
    prepared = tmp_path / "frames_number_4_split_by_number/train/cat/a.npz"
    fill(prepared.parent, {"a.npz": event_files.npz(frames=frames)})
    fill(tmp_path / "events_np/train/cat", {"a.npz": event_files.events_npz(recording(1))})
    settings = FrameSettings(steps, sensor=event_files.SENSOR)
    assert_seeds(load(tmp_path / folder, settings=settings), [1], settings)
    used = load(tmp_path, settings=settings).examples.path(0)
    assert used == str(prepared if steps == 4 else tmp_path / "events_np/train/cat/a.npz")


def test_prepared_frames_of_other_time_steps_are_refused(tmp_path):
    frames = frames_of(1).transpose(0, 3, 1, 2)
    fill(tmp_path / "train/cat", {"a.npz": event_files.npz(frames=frames)})
    with pytest.raises(ValueError, match=r"a.npz holds 4 frames .* expected are 10 \(model.time"):
        load(tmp_path, settings=FrameSettings(10))


# The last tenth of each class, in an order of its own.


def unsplit(root, count=11):
    fill(
        root, {f"{c}/x_{i}.bin": event_files.aer(recording(i)) for c in "ab" for i in range(count)}
    )
    return root


def numbers(source):
    places = range(len(source))
    return [int(source.examples.path(i).rsplit("_")[-1].removesuffix(".bin")) for i in places]


@pytest.mark.parametrize(("order", "test"), [("number", [10]), ("name", [9])])
def test_a_set_without_splits_keeps_the_last_tenth_of_each_class(tmp_path, order, test):
    settings = FrameSettings(4, sensor=event_files.SENSOR, split_order=order)
    parts = [load(unsplit(tmp_path), split, settings) for split in ("train", "test")]
    assert numbers(parts[1]) == test * 2
    assert sorted(numbers(parts[0])) == sorted(2 * [i for i in range(11) if i not in test])
    assert [e["label"] for e in parts[1].examples] == [0, 1]


def test_only_train_and_test_are_parts_of_a_set_without_splits(tmp_path):
    with pytest.raises(FileNotFoundError, match="class folders, of which train and test are fixed"):
        load(unsplit(tmp_path, 1), "val")
    with pytest.raises(ValueError, match="too few for this split"):
        load(unsplit(tmp_path, 1), "test")


CIFAR10_DVS = {
    name: [f"{name}/cifar10_{name}_{i}.aedat" for i in range(1000)]
    for name in fixed_split.CIFAR10_DVS_CLASSES
}
TESTED = {
    "number": set(range(900, 1000)),
    "name": set(range(909, 1000)) | set(range(91, 100)),  # as in the authors' scripts
}


@pytest.mark.parametrize("order", TESTED)
def test_the_split_of_cifar10_dvs_is_the_published_one(order):
    chosen = {
        part: [
            p for paths in CIFAR10_DVS.values() for p in fixed_split.fixed_part(paths, part, order)
        ]
        for part in fixed_split.PARTS
    }
    assert [len(chosen[part]) for part in fixed_split.PARTS] == [9000, 1000]
    places = {int(path.rsplit("_")[-1].removesuffix(".aedat")) for path in chosen["test"]}
    assert places == TESTED[order]
    for part, paths in chosen.items():
        lines = sorted(path.removesuffix(".aedat") for path in paths)
        digest = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
        assert fixed_split.CHECKSUMS[order, part] == digest
        assert fixed_split.checksum([p.replace(".aedat", ".npz") for p in paths]) == digest


def test_an_incomplete_cifar10_dvs_is_told(tmp_path, caplog):
    data = event_files.aedat2(recording(1))
    names = [f"{c}/cifar10_{c}_{i}.aedat" for c in fixed_split.CIFAR10_DVS_CLASSES for i in (0, 1)]
    fill(tmp_path, dict.fromkeys(names, data))
    load(tmp_path, "train", FrameSettings(4))
    assert "is not the whole CIFAR10-DVS" in caplog.text


# DVS128 Gesture as published: long recordings and lists of trials.


@pytest.fixture
def gestures(tmp_path):
    folder = tmp_path / "DvsGesture"
    fill(
        folder,
        {
            "trials_to_train.txt": b"user01_led.aedat\nuser02_lab.aedat\n\n",
            "trials_to_test.txt": b"user03_led.aedat\n",
            "user01_led_labels.csv": b"class,startTime_usec,endTime_usec\n1,0,900\n8,900,1700\n",
            "user02_lab_labels.csv": b"class,startTime_usec,endTime_usec\r\n11,100,2000\r\n",
            "user03_led_labels.csv": b"class,startTime_usec,endTime_usec\n2,0,2000\n",
        },
    )
    for seed, name in enumerate(("user01_led", "user02_lab", "user03_led")):
        (folder / f"{name}.aedat").write_bytes(event_files.aedat3(recording(seed)))
    return tmp_path


def test_trials_are_cut_from_long_recordings(gestures):
    source = load(gestures)
    assert source.class_names == GESTURES
    assert [e["label"] for e in source.examples] == [0, 7, 10]
    t = recording(0).t
    for index, (start, end) in enumerate([(0, 900), (900, 1700)]):
        events = recording(0).part((t >= start) & (t < end))
        frames = to_frames(events, SETTINGS, event_files.SENSOR, "a")
        np.testing.assert_array_equal(source.examples[index]["image"], frames)
    assert len(load(gestures, "test")) == 1
    assert len(load(gestures, "train[:67%]")) == 2


def test_trials_that_make_no_sense_are_named(gestures):
    labels = gestures / "DvsGesture/user01_led_labels.csv"
    for line, message in (
        ("12,0,900", "'12,0,900'; expected are a class from 1 to 11"),
        ("1,900,900", "'1,900,900'; expected are a class from 1 to 11 and start < end"),
        ("1,900", "'1,900'; expected are class, start and end"),
    ):
        labels.write_text(f"class,startTime_usec,endTime_usec\n1,0,900\n{line}\n")
        with pytest.raises(ValueError, match=f"user01_led_labels.csv, line 3 is {message}"):
            load(gestures)
    labels.write_text("class,startTime_usec,endTime_usec\n1,0,900\n2,5000,5001\n")
    with pytest.raises(DamagedImage, match=r"user01_led.aedat from 5000 to 5001 .* is empty"):
        load(gestures).examples[1]
    labels.write_bytes(b"\xff\xfe1,0,900")
    with pytest.raises(ValueError, match="user01_led_labels.csv is damaged or no text: 'utf-8'"):
        load(gestures)
    labels.write_text("class,startTime_usec,endTime_usec\n1,0,900\n")
    with pytest.raises(FileNotFoundError, match=r"trials_to_val.txt .* \['test', 'train'\]"):
        load(gestures, "val")
    (gestures / "DvsGesture/user02_lab.aedat").unlink()
    with pytest.raises(FileNotFoundError, match="user02_lab.aedat, which the list of trials names"):
        load(gestures)


def test_trials_of_frames_are_named(gestures):
    folder = gestures / "DvsGesture"
    (folder / "trials_to_train.txt").write_text("user01_led.npz\n")
    (folder / "user01_led.npz").write_bytes(event_files.npz(frames=np.ones((4, 2, 3, 3))))
    with pytest.raises(DamagedImage, match=r"user01_led.npz holds frames, .* 0 to 900 micro"):
        load(gestures)
    (folder / "trials_to_train.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="trials_to_train.txt is damaged or no text"):
        load(gestures)
