import collections
import concurrent.futures
import io
import pickle
import shutil

import image_files
import numpy as np
import pytest
import tensorflow_datasets as tfds

from snnvit_jax.data import sources
from snnvit_jax.data.decode import DamagedImage


def test_digits_are_the_real_ones_with_a_stratified_test_split():
    train, test = (sources.load("digits", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (1437, 360)
    assert train.num_classes == 10
    counts = collections.Counter(example["label"] for example in test.examples)
    assert min(counts.values()) >= 34
    assert test.examples[0]["image"].shape == (8, 8, 1)
    assert test.examples[0]["image"].dtype == np.uint8
    keys = [{e["image"].tobytes() for e in source.examples} for source in (train, test)]
    assert not keys[0] & keys[1]


def test_digits_are_the_same_every_time():
    a, b = (sources.load("digits", "test") for _ in range(2))
    assert [e["label"] for e in a.examples] == [e["label"] for e in b.examples]


def test_digits_keep_all_grey_levels():
    images = np.stack([e["image"] for e in sources.load("digits", "train").examples])
    assert len(np.unique(images)) == 17
    assert images.max() == 255


@pytest.mark.parametrize("split", ["validation", "train[:10%]", ""])
def test_unknown_digits_split_is_named(split):
    with pytest.raises(ValueError, match="unknown split=.* use one of train, test"):
        sources.load("digits", split)


def test_a_data_set_that_is_not_prepared_says_how_to(tmp_path):
    with pytest.raises(FileNotFoundError, match="'mnist' is not prepared in .* Prepare it once"):
        sources.load("mnist", "train", tmp_path)


def test_a_data_set_prepared_in_another_format_is_refused(prepared, tmp_path):
    shutil.copytree(prepared[0], tmp_path, dirs_exist_ok=True)
    (info,) = tmp_path.rglob("dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="'cifar10' in .* cannot be opened; it must .*TFRECORD"):
        sources.load("cifar10", "train", tmp_path)


def test_an_unknown_data_set_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data set 'no_such_set'"):
        sources.load("no_such_set", "train", tmp_path)


FILES = image_files.every_kind() | image_files.every_damage()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A genuine, tiny data set of TensorFlow Datasets, written without TensorFlow.

    "train" holds 20 images of the right size, "test" a file of every kind, intact or damaged.
    """
    folder = tmp_path_factory.mktemp("tfds")
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    builder = tfds.builder("cifar10", data_dir=folder, file_format="array_record")
    files = {"train": map(image_files.encode, images), "test": FILES.values()}
    builder._split_generators = lambda _: {
        split: (
            (str(i), {"id": str(i), "image": io.BytesIO(data), "label": i % 10})
            for i, data in enumerate(found)
        )
        for split, found in files.items()
    }
    builder.download_and_prepare()
    return folder, images


def test_tfds_images_arrive_unchanged(prepared):
    folder, images = prepared
    source = sources.load("cifar10", "train", folder)
    assert source.num_classes == 10
    assert source.channels == 3
    found = {example["image"].tobytes(): example["label"] for example in source.examples}
    assert found == {image.tobytes(): i % 10 for i, image in enumerate(images)}


def test_tfds_splits_can_be_cut(prepared):
    sizes = [
        len(sources.load("cifar10", split, prepared[0])) for split in ("train[:90%]", "train[90%:]")
    ]
    assert sizes == [18, 2]


PARTS = "train[5:15]+test[:3]+train[0:2]+train[19:]"


def test_parts_of_several_files_are_those_of_tensorflow_datasets(prepared):
    examples = sources.load("cifar10", PARTS, prepared[0]).examples
    expected = tfds.data_source(
        "cifar10",
        split=PARTS,
        data_dir=prepared[0],
        decoders={"image": tfds.decode.SkipDecoding()},
        builder_kwargs={"file_format": "array_record"},
    )
    assert len(examples) == len(expected) == 16
    for index in (*range(16), 0, 15):
        assert examples.encoded(index) == (expected[index]["image"], expected[index]["label"])
    assert examples.encoded(-1) == examples.encoded(15)
    for index in (16, -17):
        with pytest.raises(IndexError):
            examples.encoded(index)


def test_threads_may_read_at_once(prepared):
    expected = [
        sources.load("cifar10", "train", prepared[0]).examples.encoded(i) for i in range(20)
    ]
    examples = sources.load("cifar10", "train", prepared[0]).examples
    order = np.random.default_rng(0).integers(20, size=2000).tolist()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(examples.encoded, order))
    assert found == [expected[index] for index in order]


@pytest.mark.parametrize(
    "split",
    [
        *("train[0:0]", "nonsense", "train[15:5]", "train[90%:10%]", "train[15:-15]"),
        *("train[15:5]+test", "train[100%:]"),
    ],
)
def test_empty_and_unknown_splits_are_named(prepared, split):
    with pytest.raises(ValueError, match=r"split .* of data set 'cifar10' is empty"):
        sources.load("cifar10", split, prepared[0])


@pytest.fixture(scope="module")
def in_both(prepared, tmp_path_factory):
    """The examples of every file from an image folder and from TensorFlow Datasets."""
    root = tmp_path_factory.mktemp("folder")
    for i, data in enumerate(FILES.values()):
        path = root / f"test/{i % 10}/{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    folder = sources.load("image_folder", "test", root).examples
    tfds_ = sources.load("cifar10", "test", prepared[0]).examples
    places = {int(folder.path(index).stem): index for index in range(len(folder))}
    # TensorFlow Datasets has an order of its own: its records are told apart by their bytes.
    records = {tfds_.encoded(index)[0]: index for index in range(len(tfds_))}
    return {
        name: ((folder, places[i]), (tfds_, records[data]))
        for i, (name, data) in enumerate(FILES.items())
    }


@pytest.mark.parametrize("name", image_files.every_kind())
def test_folder_and_tfds_give_the_same_arrays_for_the_same_file(in_both, name):
    a, b = (examples[index] for examples, index in in_both[name])
    assert a["label"] == b["label"]
    assert a["image"].dtype == b["image"].dtype == np.uint8
    np.testing.assert_array_equal(a["image"], b["image"])


@pytest.mark.parametrize("name", image_files.every_damage())
def test_folder_and_tfds_name_the_same_damage(in_both, name):
    (folder, place), (tfds_, record) = in_both[name]
    message = f"^record {record} of split 'test' of data set 'cifar10' is damaged: (.*)"
    with pytest.raises(DamagedImage, match=message) as of_tfds:
        tfds_[record]
    with pytest.raises(DamagedImage, match=f"^{folder.path(place)} is damaged: ") as of_folder:
        folder[place]
    reasons = [str(error.value).partition(" is damaged: ")[2] for error in (of_tfds, of_folder)]
    assert reasons[0] == reasons[1]


def test_records_can_be_read_after_pickling_an_open_data_set(prepared):
    source = sources.load("cifar10", "train[5:15]", prepared[0])
    expected = list(source.examples)
    text = pickle.dumps(source)
    assert len(text) < 10_000
    for example, other in zip(expected, pickle.loads(text).examples, strict=True):
        assert example["label"] == other["label"]
        np.testing.assert_array_equal(example["image"], other["image"])


def test_digits_can_be_pickled():
    source = sources.load("digits", "test")
    copy = pickle.loads(pickle.dumps(source))
    assert (len(copy), copy.channels, copy.class_names) == (360, 1, source.class_names)
    np.testing.assert_array_equal(copy.examples[7]["image"], source.examples[7]["image"])


@pytest.mark.parametrize("wrong", ["image", "label"])
def test_prepared_features_of_other_types_are_refused(monkeypatch, prepared, wrong):
    real = tfds.builder("cifar10", data_dir=prepared[0], file_format="array_record")
    other = {
        "image": tfds.features.Image(shape=(None, None, 1), dtype=np.float32),
        "label": tfds.features.Scalar(np.int64),
    }
    features = {name: real.info.features[name] for name in other} | {wrong: other[wrong]}
    monkeypatch.setattr(real.info, "_features", tfds.features.FeaturesDict(features))
    monkeypatch.setattr(tfds, "builder", lambda *args, **options: real)
    with pytest.raises(ValueError, match="'cifar10' has an image .* they must be an Image"):
        sources.load("cifar10", "train", prepared[0])


def test_data_sets_without_images_and_labels_are_refused(monkeypatch, prepared):
    real = tfds.builder("cifar10", data_dir=prepared[0], file_format="array_record")
    text = tfds.features.FeaturesDict({"text": tfds.features.Text()})
    monkeypatch.setattr(real.info, "_features", text)
    monkeypatch.setattr(tfds, "builder", lambda *args, **options: real)
    with pytest.raises(ValueError, match=r"has features \['text'\], not image and label"):
        sources.load("cifar10", "train", prepared[0])


def test_a_label_outside_the_classes_is_found_before_training():
    source = sources.load("digits", "train")
    sources.check_some_labels(source)
    with pytest.raises(ValueError, match=r"label \d of example \d+ in split 'train' lies outside"):
        sources.check_some_labels(sources.Source(source.examples, source.class_names[:5], "train"))


def test_grey_and_coloured_splits_are_told_apart():
    grey = sources.load("digits", "train")
    examples = [{"image": np.zeros((4, 4, 3), np.uint8), "label": 0}]
    coloured = sources.Source(examples, grey.class_names, "test")
    sources.check_same_channels(grey, grey)
    with pytest.raises(ValueError, match="'train' has grey images and split 'test' RGB ones"):
        sources.check_same_channels(grey, coloured)


def test_labels_are_read_without_decoding(prepared):
    examples = sources.load("cifar10", "train", prepared[0]).examples
    assert [examples.label(i) for i in range(5)] == [examples[i]["label"] for i in range(5)]
