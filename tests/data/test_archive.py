import pickle

import numpy as np
import pytest

from snnvit_jax.data import sources

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 6, 5, 3), np.uint8)
LABELS = np.arange(20) % 7


def arrays(**changes):
    """Arrays of a good archive, some of them replaced or (None) left out."""
    good = {
        "x_train": IMAGES,
        "y_train": LABELS,
        "x_test": IMAGES[:4, ..., 0],
        "y_test": LABELS[:4, None].astype(np.uint8),
    }
    return {name: array for name, array in (good | changes).items() if array is not None}


def write(folder, save=np.savez, **changes):
    path = folder / "images.npz"
    save(path, **arrays(**changes))
    return path


def assert_holds(source, images, labels):
    assert [example["label"] for example in source.examples] == labels.tolist()
    for example, image in zip(source.examples, images, strict=True):
        np.testing.assert_array_equal(example["image"], image)
        assert example["image"].dtype == np.uint8
        assert type(example["image"]) is np.ndarray
        assert type(example["label"]) is int


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_both_splits_arrive_stored_or_compressed(tmp_path, save, order):
    path = write(tmp_path, save, x_train=np.asarray(IMAGES, order=order))
    assert_holds(sources.load("archive", "train", path), IMAGES, LABELS)
    test = sources.load("archive", "test", str(path))
    assert_holds(test, IMAGES[:4, ..., :1], LABELS[:4])
    assert test.class_names == tuple("0123456")
    assert test.channels == 1


def test_images_and_labels_are_a_single_split(tmp_path):
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=LABELS)
    assert_holds(sources.load("archive", "train", tmp_path / "x.npz"), IMAGES, LABELS)
    with pytest.raises(ValueError, match="no split 'test' in .*x.npz: it holds images, labels"):
        sources.load("archive", "test", tmp_path / "x.npz")


def test_slices_follow_the_order_of_the_archive(tmp_path):
    path = write(tmp_path)
    assert_holds(sources.load("archive", "train[:90%]", path), IMAGES[:18], LABELS[:18])
    assert_holds(sources.load("archive", "train[-2:]", path), IMAGES[-2:], LABELS[-2:])
    assert sources.load("archive", "train[:2]", path).num_classes == 7
    for split in ("train[5:5]", "train[15:5]", "train[20:]", "train[90%:10%]"):
        with pytest.raises(ValueError, match="split 'train.*' of data set 'archive' is empty"):
            sources.load("archive", split, path)


def test_a_pickle_holds_no_images(tmp_path):
    source = sources.load("archive", "train[3:]", write(tmp_path))
    text = pickle.dumps(source)
    assert len(text) < 500 + len(str(tmp_path))
    assert_holds(pickle.loads(text), IMAGES[3:], LABELS[3:])


def test_classes_may_have_names(tmp_path):
    names = tuple("abcdefgh")
    path = write(tmp_path, class_names=np.array(names))
    assert sources.load("archive", "test", path).class_names == names
    path = write(tmp_path, class_names=np.array(names[:5]))
    with pytest.raises(ValueError, match="has a label 6 but only 5 class_names"):
        sources.load("archive", "test", path)


def test_other_arrays_do_not_matter(tmp_path):
    path = write(tmp_path, y_notes=np.array(["none"]), extra=np.zeros(3))
    assert_holds(sources.load("archive", "train", path), IMAGES, LABELS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": None}, "no split 'train' in .*npz: it holds x_test, y_test, y_train"),
        ({"y_train": None}, "no split 'train' in .*npz: it holds x_test, x_train, y_test"),
        ({"x_train": IMAGES / 255}, r"images of .* are float64 \(20, 6, 5, 3\), not uint8"),
        ({"x_train": IMAGES[0]}, "holds 6 images but 20 labels"),
        ({"x_train": IMAGES[0, 0]}, r"images of .* are uint8 \(5, 3\), not uint8 \[N, H, W\]"),
        ({"x_train": np.swapaxes(IMAGES, 1, 3)}, r"are uint8 \(20, 3, 5, 6\), not uint8"),
        ({"x_train": IMAGES[:, :0]}, r"are uint8 \(20, 0, 5, 3\), not uint8"),
        ({"x_train": IMAGES[:19]}, "holds 19 images but 20 labels"),
        ({"x_train": IMAGES[:0], "y_train": LABELS[:0]}, "split 'train' .* is empty"),
        ({"y_train": LABELS / 1}, r"labels 'y_train' of .* are float64 \(20,\), not whole"),
        ({"y_train": np.eye(7)[LABELS].astype(int)}, r"'y_train' of .* are int64 \(20, 7\)"),
        ({"y_train": LABELS + 2_000_000_000}, "has a label 2000000006, and so 2000000007 classes"),
        ({"y_test": np.full(4, 100_000)}, "has a label 100000, and so 100001 classes; if it means"),
        ({"y_train": LABELS + 2**40}, "'y_train' of .* include 1099511627782, which is no class"),
        (
            {"y_train": LABELS.astype(np.uint64) + np.uint64(2**63)},
            "include 9223372036854775814, which is",
        ),
        ({"y_train": LABELS - 1}, "labels 'y_train' of .* include -1, which is below 0"),
        ({"x_train": np.array([None, "x"])}, "array 'x_train' of .* cannot be read: Object"),
    ],
)
def test_what_is_wrong_with_an_archive_is_named(tmp_path, changes, message):
    path = write(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        sources.load("archive", "train", path)


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*nowhere.npz; give the path"):
        sources.load("archive", "train", tmp_path / "nowhere.npz")
    with pytest.raises(ValueError, match="data.dir=None must say where the images of 'archive'"):
        sources.load("archive", "train")
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="images.npz is no .npz archive"):
        sources.load("archive", "train", path)
