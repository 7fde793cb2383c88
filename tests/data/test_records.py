"""Prepared data sets whose files are damaged, cut short or gone."""

import io
import pathlib
import pickle
import shutil

import image_files
import numpy as np
import pytest
import tensorflow_datasets as tfds

from snnvit_jax.data import loader, sources
from snnvit_jax.data.decode import DamagedImage
from snnvit_jax.data.sources.records import Records, UnreadableError

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """A genuine, tiny data set of TensorFlow Datasets, written without TensorFlow."""
    folder = tmp_path_factory.mktemp("tfds")
    builder = tfds.builder("cifar10", data_dir=folder, file_format="array_record")
    builder._split_generators = lambda _: {
        split: (
            (
                str(i),
                {"id": str(i), "image": io.BytesIO(image_files.encode(image)), "label": i % 10},
            )
            for i, image in enumerate(IMAGES)
        )
        for split in ("train", "test")
    }
    builder.download_and_prepare()
    return folder


@pytest.fixture
def folder(intact, tmp_path):
    return pathlib.Path(shutil.copytree(intact, tmp_path / "tfds"))


def file_of(folder, split="train"):
    (path,) = folder.rglob(f"*-{split}.array_record-*")
    return path


def damage(path):
    """Flips a bit in the image of one record."""
    data = bytearray(path.read_bytes())
    data[40_000] ^= 1  # behind the file's own header, within the first half of the records
    path.write_bytes(data)


def readable(source):
    """Which examples can be read."""
    found = []
    for index in range(len(source)):
        try:
            found.append(source.examples[index] is not None)
        except DamagedImage as error:
            assert str(error).startswith(f"record {index} of split 'train' of data set 'cifar10'")
            found.append(False)
    return found


def test_a_damaged_record_is_named_with_its_file(folder):
    path = file_of(folder)
    damage(path)
    source = sources.load("cifar10", "train", folder)
    found = readable(source)
    assert sum(found) == 19
    index = found.index(False)
    message = f"record {index} of split 'train' of data set 'cifar10' is damaged: {path}: Corrupted"
    for read in (source.examples.__getitem__, source.examples.label, source.examples.encoded):
        with pytest.raises(DamagedImage, match=message):
            read(index)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (cut, "the file is cut short: it holds 0 records"),
        (pathlib.Path.unlink, "there is no such file"),
        (lambda path: path.write_bytes(b""), "cut short"),
        (lambda path: path.write_bytes(b"text" * 10**5), "."),
    ],
)
def test_a_file_that_is_gone_or_none_is_named_for_each_of_its_records(folder, harm, reason):
    path = file_of(folder)
    source = sources.load("cifar10", "train", folder)
    harm(path)
    assert not any(readable(source))
    with pytest.raises(DamagedImage, match=f"record 3 of .* is damaged: {path}: .*{reason}"):
        source.examples[3]


def test_a_record_that_holds_no_example_is_named(folder):
    examples = sources.load("cifar10", "train", folder).examples
    examples._records = [b"no example \xff"]
    with pytest.raises(DamagedImage, match="record 0 of .* is damaged: it holds no example"):
        examples[0]


def test_the_end_of_the_records_is_still_the_end(folder):
    examples = sources.load("cifar10", "train", folder).examples
    assert len(list(examples)) == 20
    with pytest.raises(IndexError):
        examples[20]


def test_files_that_are_missing_are_found_before_any_work(folder):
    source = sources.load("cifar10", "train", folder)
    sources.check_complete(source)
    sources.check_complete(sources.load("digits", "train"))
    path = file_of(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"split 'train' .* 'cifar10', {path} is missing"):
        sources.check_complete(source)
    records = Records([(str(path), 0, 5), ("/nowhere/b", 0, 5)])
    assert records.missing == [str(path), "/nowhere/b"]
    with pytest.raises(UnreadableError, match="/nowhere/b: there is no such file"):
        pickle.loads(pickle.dumps(records))[7]


@pytest.mark.parametrize("harm", [cut, pathlib.Path.unlink])
def test_labels_that_cannot_be_read_are_left_out_only_if_that_is_asked_for(folder, harm):
    source = sources.load("cifar10", "train", folder)
    harm(file_of(folder))
    sources.check_some_labels(source, on_damaged="skip")
    with pytest.raises(DamagedImage, match=r'is damaged: .* or set data.on_damaged="skip"'):
        sources.check_some_labels(source)


@pytest.mark.parametrize("workers", [0, 1])
def test_records_that_cannot_be_read_leave_gaps(folder, workers):
    damage(file_of(folder))
    source = sources.load("cifar10", "train", folder)
    options = loader.LoaderOptions(5, (32, 32, 3), workers, "skip")
    with loader.eval_batches(source, _keep, options) as batches:
        masks = np.concatenate([batch["mask"] for batch in batches])
    assert masks.sum() == 19
    with (
        loader.eval_batches(
            source, _keep, loader.LoaderOptions(5, (32, 32, 3), workers)
        ) as batches,
        pytest.raises(DamagedImage, match="record .* is damaged: .*array_record.*; remove it, or"),
    ):
        list(batches)


def _keep(example):
    return {"image": np.float32(example["image"]), "label": np.int32(example["label"])}
