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
from snnvit_jax.data.order import EvaluationOrder, WithGaps

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


# ---------------------------------------------------------------- links


def names(source):
    """Paths of a source's images relative to the folder of its split."""
    examples = source.examples
    return [str(examples.path(i).relative_to(examples.folder)) for i in range(len(source))]


def load_one_class(root):
    return names(sources.load("image_folder", "train", root))


def test_links_to_folders_are_followed_at_any_depth(tmp_path):
    fill(tmp_path / "elsewhere", {"x.png": KINDS["rgb.png"], "deep/y.png": KINDS["rgb.png"]})
    fill(tmp_path / "more", {"z.png": KINDS["rgb.png"]})
    fill(tmp_path / "train/a", {"own.png": KINDS["rgb.png"], "sub/o.png": KINDS["rgb.png"]})
    (tmp_path / "train/a/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/deep/on").symlink_to("../../more")
    (tmp_path / "train/a/.hidden").symlink_to(tmp_path / "more")
    source = sources.load("image_folder", "train", tmp_path)
    assert names(source) == [
        *("a/link/deep/on/z.png", "a/link/deep/y.png", "a/link/x.png"),
        *("a/own.png", "a/sub/o.png"),
    ]
    for example in source.examples:
        np.testing.assert_array_equal(example["image"], image_files.picture())


@pytest.mark.parametrize("target", [".", "..", "../..", "sub", "sub/up", "/", "loop", "{}/train"])
@pytest.mark.filterwarnings("ignore:.* is a link to 'loop'")
def test_a_circle_of_links_ends_and_repeats_nothing(tmp_path, target):
    fill(tmp_path / "train/a/sub", {"x.png": KINDS["rgb.png"]})
    fill(tmp_path / "train/b", {"y.png": KINDS["rgb.png"]})
    (tmp_path / "train/a/sub/up").symlink_to("..")
    (tmp_path / "train/a/loop").symlink_to(target.format(tmp_path))
    assert load_one_class(tmp_path) == ["a/sub/x.png", "b/y.png"]


def test_many_ways_to_one_folder_are_one(tmp_path):
    fill(tmp_path / "train/a/2", {"x.png": KINDS["rgb.png"]})
    previous = tmp_path / "train/a/2"
    for depth in range(40):  # 2 ** 40 paths
        folder = tmp_path / f"train/a/f{depth}"
        folder.mkdir()
        for name in "lr":
            (folder / name).symlink_to(previous)
        previous = folder
    (tmp_path / "train/a/1").symlink_to("2")  # comes first, but 2 has a path of its own
    assert load_one_class(tmp_path) == ["a/2/x.png"]
    fill(tmp_path / "far", {"y.png": KINDS["rgb.png"]})
    for name in ("q", "p"):
        (tmp_path / "train/a" / name).symlink_to(tmp_path / "far")
    assert load_one_class(tmp_path) == ["a/2/x.png", "a/p/y.png"]


@pytest.mark.parametrize("target", ["nowhere", "x.png", "b.png/x"])
def test_an_image_that_is_a_link_to_nothing_is_damaged(tmp_path, target):
    fill(tmp_path / "train/a", {"b.png": KINDS["rgb.png"]})
    (tmp_path / "train/a/x.png").symlink_to(target)
    source = sources.load("image_folder", "train", tmp_path)
    assert names(source) == ["a/b.png", "a/x.png"]
    message = f"^{tmp_path}/train/a/x.png is damaged: a link to '{target}', where there is nothing"
    with pytest.raises(DamagedImage, match=message):
        source.examples[1]
    blank = {"image": np.zeros((24, 40, 3), np.uint8)}
    order = WithGaps(EvaluationOrder(source.examples, lambda example: example), blank, 2)
    assert [bool(order[i]["mask"]) for i in range(2)] == [True, False]
    assert order[1]["damaged"].startswith(f"{tmp_path}/train/a/x.png is damaged")


def test_links_to_images_are_images(tmp_path):
    fill(tmp_path, {"x.data": KINDS["rgb.png"], "train/a/b.png": KINDS["rgb.png"]})
    (tmp_path / "train/a/x.png").symlink_to(tmp_path / "x.data")
    assert load_one_class(tmp_path) == ["a/b.png", "a/x.png"]


def test_what_might_have_been_a_folder_of_images_is_warned_of(tmp_path):
    fill(tmp_path / "train/a", {"b.png": KINDS["rgb.png"], "notes.txt": b""})
    (tmp_path / "train/a/photos").symlink_to("/nowhere/photos")
    with pytest.warns(UserWarning, match="train/a/photos' is a link to '/nowhere/photos', where"):
        assert load_one_class(tmp_path) == ["a/b.png"]


@pytest.mark.parametrize("target", ["/nowhere/b", "b", "a/x.png/b"])
def test_a_class_that_is_a_link_to_nothing_is_named(tmp_path, target):
    fill(tmp_path / "train/a", {"x.png": KINDS["rgb.png"]})
    (tmp_path / "train/b").symlink_to(target)
    message = f"class folder '{tmp_path}/train/b' is a link to '{target}', where there is nothing"
    with pytest.raises(ValueError, match=message):
        sources.load("image_folder", "train", tmp_path)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    fill(tmp_path / "train/a", {"x.png": KINDS["rgb.png"]})
    os.mkfifo(tmp_path / "train/a/y.png")
    assert load_one_class(tmp_path) == ["a/x.png"]


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    fill(tmp_path / "train/a", {"x.png": KINDS["rgb.png"], "sub/y.png": KINDS["rgb.png"]})
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="train/a/sub"):
        sources.load("image_folder", "train", tmp_path)


# ---------------------------------------------------------------- names of classes

COMPOSED, DECOMPOSED = "caf\xe9", "cafe\u0301"


def test_two_unicode_forms_of_a_name_are_one_class(tmp_path):
    image = {"x.png": KINDS["rgb.png"]}
    fill(tmp_path / "train" / COMPOSED, image)
    fill(tmp_path / "train/cafz", image)
    fill(tmp_path / "val" / DECOMPOSED, image)
    fill(tmp_path / "val/cafz", image)
    fill(tmp_path / "both" / COMPOSED, image)
    fill(tmp_path / "both" / DECOMPOSED, {"y.png": KINDS["rgb.png"]})
    fill(tmp_path / "both/cafz", image)
    loaded = [sources.load("image_folder", s, tmp_path) for s in ("train", "val", "both")]
    for source in loaded:
        assert source.class_names == ("cafz", COMPOSED)
        sources.check_same_classes(loaded[0], source)
    assert [[e["label"] for e in source.examples] for source in loaded] == [[0, 1]] * 2 + [
        [0, 1, 1]
    ]
    assert names(loaded[1]) == ["cafz/x.png", f"{DECOMPOSED}/x.png"]


def test_names_in_archives_are_composed_too(tmp_path):
    arrays = {"x_train": np.zeros((1, 2, 2), np.uint8), "y_train": np.zeros(1, int)}
    np.savez(tmp_path / "x.npz", **arrays, class_names=np.array([DECOMPOSED]))
    source = sources.load("archive", "train", tmp_path / "x.npz")
    assert source.class_names == (COMPOSED,)


def test_names_that_look_alike_are_told_apart_by_their_characters(tmp_path):
    cyrillic = "\u0441at"  # its first letter is not a c
    for split, name in (("train", "cat"), ("val", cyrillic)):
        fill(tmp_path / split / name, {"x.png": KINDS["rgb.png"]})
    train, val = (sources.load("image_folder", split, tmp_path) for split in ("train", "val"))
    message = r"differ: \['cat', '\u0441at' = '\\u0441at'\]"
    with pytest.raises(ValueError, match=message):
        sources.check_same_classes(train, val)


def test_classes_whose_names_are_no_text_are_kept(tmp_path):
    name = os.fsdecode(b"\xff\xe9")
    fill(tmp_path / "train" / name, {"x.png": KINDS["rgb.png"]})
    fill(tmp_path / "val/a", {"x.png": KINDS["rgb.png"]})
    train, val = (sources.load("image_folder", split, tmp_path) for split in ("train", "val"))
    assert train.class_names == (name,)
    np.testing.assert_array_equal(train.examples[0]["image"], image_files.picture())
    with pytest.raises(ValueError) as error:
        sources.check_same_classes(train, val)
    assert r"'\udcff\udce9'" in str(error.value)
    str(error.value).encode()  # can be printed anywhere
