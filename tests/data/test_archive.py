import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from snnvit_jax.data import sources
from snnvit_jax.data.sources import npz

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


def test_names_of_classes_that_are_bytes_or_numbers_become_text(tmp_path):
    names = ("café", "b", "c", "d", "e", "f", "\udcff")
    path = write(tmp_path, class_names=np.array([os.fsencode(name) for name in names]))
    assert sources.load("archive", "test", path).class_names == names
    path = write(tmp_path, class_names=np.arange(10, 17))
    assert sources.load("archive", "test", path).class_names == tuple(map(str, range(10, 17)))


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
        ({"x_train": np.array([None, "x"])}, "array 'x_train' .*: it holds Python objects"),
        ({"class_names": np.array(["a", None])}, "'class_names' .* Python objects.*dtype=str"),
        ({"class_names": np.array("abcdefg")}, r"class_names of .* are <U7 \(\), not one name"),
        ({"class_names": np.array([["a", "b"]] * 7)}, r"are <U1 \(7, 2\), not one name for each"),
        ({"class_names": np.arange(7) / 2}, r"class_names of .* are float64 \(7,\), not one name"),
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


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("train_images", "train_labels"),
        ("images_train", "labels_train"),
        ("X_train", "Y_train"),
        ("xtrain", "ytrain"),
        ("train_data", "train_targets"),
        ("train", "train_y"),
    ],
)
def test_other_names_are_refused_with_those_wanted(tmp_path, images, labels):
    path = tmp_path / "x.npz"
    others = {name.replace("train", "val"): IMAGES for name in (images, labels)}
    np.savez(path, **{images: IMAGES, labels: LABELS}, **others)
    message = (
        f"no split 'train' in {path}: it holds .*; expected are .x_train. and .y_train., or "
        f".images. and .labels. .*: a = numpy.load.OLD., "
        f"numpy.savez.NEW, x_train=a.'{images}'., y_train=a.'{labels}'., ...."
    )
    with pytest.raises(ValueError, match=message):
        sources.load("archive", "train", path)


# ---------------------------------------------------------------- damage


def content(path):
    """All that the archive gives, or None if it is refused as it should be."""
    try:
        splits = [sources.load("archive", split, path) for split in ("train", "test")]
        examples = [
            [(e["image"].tolist(), e["label"]) for e in source.examples] for source in splits
        ]
    except ValueError as error:
        assert str(path) in str(error)
        return None
    return [source.class_names for source in splits], examples


@pytest.fixture(scope="module", params=["stored", "compressed"])
def sound(request, tmp_path_factory):
    save = {"stored": np.savez, "compressed": np.savez_compressed}[request.param]
    names = {"class_names": np.array(list("abcdefg"))}
    changes = {"x_train": IMAGES[:7, :2], "y_train": LABELS[:7], "x_test": IMAGES[:4, :2, :, 0]}
    return write(tmp_path_factory.mktemp(request.param), save, **changes, **names)


def test_a_flipped_bit_anywhere_is_refused_or_harmless(sound, tmp_path):
    expected, data = content(sound), sound.read_bytes()
    assert expected is not None
    path, refused = tmp_path / "x.npz", 0
    for place in range(0, len(data), 2):
        flipped = bytearray(data)
        flipped[place] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        found = content(path)
        assert found in (None, expected), place
        refused += found is None
    assert refused > len(data) / 6  # the rest are dates and the like


def test_a_file_cut_anywhere_is_refused(sound, tmp_path):
    data, path = sound.read_bytes(), tmp_path / "x.npz"
    for length in range(0, len(data), 37):
        path.write_bytes(data[:length])
        assert content(path) is None, length


def test_a_damaged_array_is_named(tmp_path):
    path = write(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(IMAGES.tobytes()) + 1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="array 'x_train' of .* cannot be read: Bad CRC-32"):
        sources.load("archive", "train", path)
    sources.load("archive", "test", path)  # images of other splits are not read


def test_who_unpickles_does_not_read_all_images_again(tmp_path, monkeypatch):
    text, read = pickle.dumps(sources.load("archive", "train", write(tmp_path))), []
    monkeypatch.setattr(npz, "_check_sum", lambda _, info: read.append(info.filename))
    assert_holds(pickle.loads(text), IMAGES, LABELS)
    assert "x_train.npy" not in read


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("shape", [(21, 6, 5, 3), (19, 6, 5, 3), (1 << 40, 1 << 20), (-20, 3)])
def test_a_shape_that_is_not_that_of_the_numbers_is_refused(tmp_path, save, shape):
    path = tmp_path / "x.npz"
    save(path, **arrays())
    with zipfile.ZipFile(path) as old:
        files, kind = {name: old.read(name) for name in old.namelist()}, old.infolist()[0]
    header = io.BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    files["x_train.npy"] = header.getvalue() + IMAGES.tobytes()
    with zipfile.ZipFile(path, "w", kind.compress_type) as new:  # with right checksums
        for name, data in files.items():
            new.writestr(name, data)
    with pytest.raises(ValueError, match="array 'x_train' of .* cannot be read"):
        sources.load("archive", "train", path)
