"""Images kept in one NumPy archive (.npz), as arrays of images and labels."""

import operator
import os

import numpy as np

from snnvit_jax.common.paths import expanded
from snnvit_jax.data.sources import npz
from snnvit_jax.data.sources.splits import parse_split

# Without names, a label says by itself how many classes there are; no image set has more than this.
MOST_UNNAMED_CLASSES = 100_000


class ImageArchive:
    """Images of an archive by random access to {"image": uint8 [H, W, C], "label": int}.

    Arrays that were stored uncompressed (`np.savez`) stay on disk and are shared by all processes;
    compressed ones (`np.savez_compressed`) are read into the memory of each. A pickle holds no more
    than path and split: whoever unpickles it opens the archive again.

    Attributes:
      class_names: the archive's own array "class_names" [K] of strings, else "0" to the largest
        label of any of its splits.
      channels: of the images, 1 or 3.
    """

    def __init__(self, path, split, check=True):
        """Opens and checks one split.

        All of it is read once, to compare checksums.

        Args:
          path: of an .npz file with arrays "x_SPLIT" and "y_SPLIT" for each split ("x_train",
            "y_train", "x_test", "y_test"), or "images" and "labels" for a single split "train".
            Images are uint8 [N, H, W] or [N, H, W, C], C 1 or 3; labels whole numbers [N] or
            [N, 1], >= 0.
          split: name of a split, perhaps sliced in the order of the archive: see
            `splits.parse_split`.
          check: whether to compare the checksum of images that stay on disk.

        Raises:
          FileNotFoundError: if there is no such file.
          ValueError: naming what is wrong with it, or damaged.
        """
        self._opened = (path, split)
        part = parse_split(split)
        path = expanded(path)
        members = _members(path)
        images = npz.open_array(path, _key(path, members, part.name, 0), check)
        labels = _labels(path, _key(path, members, part.name, 1))
        _check_images(path, images, labels)
        self.class_names = _class_names(path, members)
        self._images = images[..., None] if images.ndim == 3 else images
        self.channels = self._images.shape[-1]
        self._labels = labels
        self._range = range(*part.bounds(len(labels)))

    def __reduce__(self):
        return ImageArchive, (*self._opened, False)  # has been checked

    def __len__(self):
        """Number of images."""
        return len(self._range)

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index):
        """Returns {"image", "label"}."""
        place = self._range[operator.index(index)]
        return {"image": np.array(self._images[place]), "label": self.label(index)}

    def label(self, index):
        """Returns the label of an example without decoding its image.

        Args:
          index: in [0, N).
        """
        return int(self._labels[self._range[index]])


def _members(path):
    """Names of the arrays in an archive."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; give the path of an .npz archive of images")
    return npz.array_names(path)


def _key(path, members, split, which):
    """Name of a split's array of images (which=0) or labels (which=1)."""
    single = {"images", "labels"} <= set(members)
    key = ("images", "labels")[which] if single else f"{'xy'[which]}_{split}"
    if key not in members or (single and split != "train"):
        raise ValueError(
            f"no split {split!r} in {path}: it holds {', '.join(sorted(members)) or 'nothing'}; "
            f'expected are "x_{split}" and "y_{split}", or "images" and "labels" for "train"'
            f"{_renaming(members, split)}"
        )
    return key


# What other archives call the images and labels of a split, in lower case.
_IMAGES_ELSEWHERE = (
    *("{}_images", "images_{}", "x_{}", "{}_x", "{}_data", "data_{}", "x{}", "{}x", "{}"),
)
_LABELS_ELSEWHERE = (
    *("{}_labels", "labels_{}", "y_{}", "{}_y", "{}_targets", "{}_label", "y{}", "{}y"),
)


def _renaming(members, split):
    """How to rename what looks like a split under other names, for an error."""
    found = {}
    for key, patterns in (("x", _IMAGES_ELSEWHERE), ("y", _LABELS_ELSEWHERE)):
        names = [pattern.format(split) for pattern in patterns]
        found[f"{key}_{split}"] = next((m for m in members if m.lower() in names), None)
    if None in found.values():
        return ""
    renamed = ", ".join(f"{key}=a[{member!r}]" for key, member in found.items())
    return f"; rename what it holds: a = numpy.load(OLD), numpy.savez(NEW, {renamed}, ...)"


def _array(path, key):
    return npz.open_array(path, key)


def _labels(path, key):
    """Labels of a split as [N], checked."""
    labels = np.asarray(_array(path, key))
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels {key!r} of {path} are {labels.dtype} {labels.shape}, not whole numbers [N]"
        )
    if labels.size and labels.min() < 0:
        raise ValueError(f"labels {key!r} of {path} include {labels.min()}, which is below 0")
    if labels.size and labels.max() > np.iinfo(np.int32).max:
        raise ValueError(f"labels {key!r} of {path} include {labels.max()}, which is no class")
    return labels.astype(np.int64)


def _check_images(path, images, labels):
    shaped = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))
    if images.dtype != np.uint8 or not shaped or 0 in images.shape[1:]:
        raise ValueError(
            f"images of {path} are {images.dtype} {images.shape}, not uint8 [N, H, W] or "
            "[N, H, W, C] with C 1 or 3"
        )
    if len(images) != len(labels):
        raise ValueError(f"{path} holds {len(images)} images but {len(labels)} labels")


def _class_names(path, members):
    """The names stored, or numbers; the same for every split."""
    keys = [key for key in members if key == "labels" or _pairs_with_images(key, members)]
    largest = max(int(_labels(path, key).max(initial=-1)) for key in keys)
    if "class_names" not in members:
        if largest >= MOST_UNNAMED_CLASSES:
            raise ValueError(
                f"{path} has a label {largest}, and so {largest + 1} classes; if it means that, "
                'add an array "class_names", otherwise number the classes from 0'
            )
        return tuple(map(str, range(largest + 1)))
    names = _stored_names(path)
    if largest >= len(names):
        raise ValueError(f"{path} has a label {largest} but only {len(names)} class_names")
    return names


def _stored_names(path):
    """The array "class_names" as text; bytes, as pickles of Python 2 hold them, are decoded."""
    names = _array(path, "class_names")
    if names.ndim != 1 or names.dtype.kind not in "USiu":
        raise ValueError(
            f"class_names of {path} are {names.dtype} {names.shape}, not one name for each class, "
            "as numpy.array(NAMES, dtype=str) has them"
        )
    return tuple(os.fsdecode(n) if isinstance(n, bytes) else str(n) for n in names.tolist())


def _pairs_with_images(key, members):
    return key.startswith("y_") and f"x_{key[2:]}" in members
