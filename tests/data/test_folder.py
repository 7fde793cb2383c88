import collections
import os
import pathlib
import pickle

import image_files
import numpy as np
import pytest
from PIL import Image

from snnvit_jax.data import sources
from snnvit_jax.data.decode import DamagedImage, decode_image

KINDS = image_files.every_kind()


def fill(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two classes with every kind of file in "train", and much that does not count."""
    root = tmp_path_factory.mktemp("images")
    fill(root / "train/zebra", KINDS)
    fill(root / "train/ant/nested/deep", {"a.png": KINDS["rgb.png"]})
    fill(root / "train/ant", dict.fromkeys((".hidden.png", "Thumbs.db", "README", "png"), b""))
    fill(root / "train", {"stray.png": KINDS["rgb.png"], ".git/x.png": KINDS["rgb.png"]})
    fill(root / "val/zebra", {"a.png": KINDS["rgb.png"]})
    return root


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Three classes of 40 images each; which one it is shows in its grey level."""
    root = tmp_path_factory.mktemp("many")
    for label, name in enumerate("abc"):
        levels = [Image.new("L", (1, 1), 40 * label + i) for i in range(40)]
        files = {f"{i:03d}.png": image_files.encode(image) for i, image in enumerate(levels)}
        fill(root / "train" / name, files)
    return root


def levels(source):
    return [int(example["image"][0, 0, 0]) for example in source.examples]


def test_labels_are_places_of_sorted_class_folders(root):
    source = sources.load("image_folder", "train", root)
    assert source.class_names == ("ant", "zebra")
    assert source.channels == 3
    assert collections.Counter(e["label"] for e in source.examples) == {0: 1, 1: len(KINDS)}


def test_every_file_arrives_as_decoded_in_the_order_of_paths(root):
    source = sources.load("image_folder", str(pathlib.Path("train")), str(root))
    found = [source.examples.path(index) for index in range(len(source))]
    zebras = [root / "train/zebra" / name for name in sorted(KINDS)]
    assert found == [root / "train/ant/nested/deep/a.png", *zebras]
    for path, example in zip(zebras, list(source.examples)[1:], strict=True):
        np.testing.assert_array_equal(example["image"], decode_image(KINDS[path.name], path))


def test_indices_are_those_of_a_sequence(many):
    examples = sources.load("image_folder", "train[:5]", many).examples
    np.testing.assert_array_equal(examples[-1]["image"], examples[np.int64(4)]["image"])
    with pytest.raises(IndexError):
        examples[5]
    with pytest.raises(TypeError):
        examples[0.0]


def test_parts_are_disjoint_and_complete_and_mix_the_classes(many):
    parts = [sources.load("image_folder", f"train[{cut}]", many) for cut in (":75%", "75%:")]
    assert [len(part) for part in parts] == [90, 30]
    assert sorted(levels(parts[0]) + levels(parts[1])) == list(range(120))
    counts = collections.Counter(example["label"] for example in parts[1].examples)
    assert min(counts.values()) >= 4  # 10 expected of each
    assert len({part.class_names for part in parts}) == 1


def test_parts_stay_the_same_for_ever(many):
    assert levels(sources.load("image_folder", "train[:8]", many)) == [
        19,
        40,
        51,
        55,
        61,
        66,
        85,
        107,
    ]


def test_parts_hardly_change_when_files_are_added(many, tmp_path):
    before = sources.load("image_folder", "train[:50%]", many)
    fill(tmp_path / "train/0", {"new.png": KINDS["rgb.png"]})
    for name in "abc":
        (tmp_path / "train" / name).symlink_to(many / "train" / name)
    after = sources.load("image_folder", "train[:50%]", tmp_path)
    assert len(set(levels(before)) - set(levels(after))) <= 1


@pytest.mark.parametrize("name", image_files.every_damage())
def test_a_damaged_file_is_named_by_its_path(tmp_path, name):
    fill(tmp_path / "train/a", {name: image_files.every_damage()[name]})
    source = sources.load("image_folder", "train", tmp_path)
    with pytest.raises(DamagedImage, match=f"^{tmp_path}/train/a/{name} is damaged: "):
        source.examples[0]


def test_a_file_that_disappears_is_an_error_of_the_machine(tmp_path):
    fill(tmp_path / "train/a", {"x.png": KINDS["rgb.png"]})
    source = sources.load("image_folder", "train", tmp_path)
    os.remove(tmp_path / "train/a/x.png")
    with pytest.raises(FileNotFoundError, match="x.png"):
        source.examples[0]


def test_names_that_are_no_text_are_kept(tmp_path):
    name = os.fsdecode(b"\xff\xfe \n.png")
    fill(tmp_path / "train/a", {name: KINDS["rgb.png"]})
    source = sources.load("image_folder", "train", tmp_path)
    assert source.examples.path(0).name == name
    np.testing.assert_array_equal(source.examples[0]["image"], image_files.picture())


def test_missing_folders_are_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere; give the one that holds"):
        sources.load("image_folder", "train", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no folder .*test for split 'test'; .* train, val"):
        sources.load("image_folder", "test[:5]", root)
    with pytest.raises(ValueError, match="data.dir=None must say where the images"):
        sources.load("image_folder", "train")


def test_folders_without_images_are_named(root, tmp_path):
    with pytest.raises(ValueError, match="train/zebra holds no class folders; images are expected"):
        sources.load("image_folder", "zebra", root / "train")
    fill(tmp_path / "train", {"a/x.png": KINDS["rgb.png"], "b/readme.txt": b"none"})
    with pytest.raises(
        ValueError, match=r"class folder .*train/b holds no images \(.jpg .*fill it"
    ):
        sources.load("image_folder", "train", tmp_path)
    with pytest.raises(ValueError, match="split 'train.0:0.' of data set 'image_folder' is empty"):
        sources.load("image_folder", "train[0:0]", root)


def test_splits_of_other_classes_are_told_apart(root):
    train, val = (sources.load("image_folder", split, root) for split in ("train", "val"))
    sources.check_same_classes(train, train)
    message = r"splits 'train' and 'val' have 2 and 1 classes that differ: \['ant'\]"
    with pytest.raises(ValueError, match=message):
        sources.check_same_classes(train, val)
    turned = sources.Source(train.examples, train.class_names[::-1], "turned")
    with pytest.raises(ValueError, match="differ: only in their order"):
        sources.check_same_classes(train, turned)


def test_a_pickle_is_hardly_more_than_the_names(many):
    source = sources.load("image_folder", "train", many)
    text = pickle.dumps(source)
    assert len(text) < len(source) * (len("a/000.png") + 8 + 4) + 1500
    assert levels(pickle.loads(text)) == levels(source)
