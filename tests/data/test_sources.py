import collections
import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from snnvit_jax.data import sources


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


def test_an_unknown_data_set_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data set 'no_such_set'"):
        sources.load("no_such_set", "train", tmp_path)


def as_png(image):
    """A file, because encoding an array would need TensorFlow."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    buffer.seek(0)
    return buffer


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A genuine, tiny data set of TensorFlow Datasets, written without TensorFlow."""
    folder = tmp_path_factory.mktemp("tfds")
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    builder = tfds.builder("cifar10", data_dir=folder, file_format="array_record")
    builder._split_generators = lambda _: {
        "train": (
            (str(i), {"id": str(i), "image": as_png(image), "label": i % 10})
            for i, image in enumerate(images)
        )
    }
    builder.download_and_prepare()
    return folder, images


def test_tfds_images_arrive_unchanged(prepared):
    folder, images = prepared
    source = sources.load("cifar10", "train", folder)
    assert source.num_classes == 10
    found = {example["image"].tobytes(): example["label"] for example in source.examples}
    assert found == {image.tobytes(): i % 10 for i, image in enumerate(images)}


def test_tfds_splits_can_be_cut(prepared):
    sizes = [
        len(sources.load("cifar10", split, prepared[0])) for split in ("train[:90%]", "train[90%:]")
    ]
    assert sizes == [18, 2]


@pytest.mark.parametrize("split", ["train[0:0]", "nonsense"])
def test_empty_and_unknown_splits_are_named(prepared, split):
    with pytest.raises(ValueError, match=r"split .* of data set 'cifar10' is empty or unknown"):
        sources.load("cifar10", split, prepared[0])
