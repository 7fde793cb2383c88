"""Images kept as files in a folder for each class: root/split/class/anything/image.JPEG."""

import dataclasses
import hashlib
import operator
import os
import pathlib

import numpy as np

from snnvit_jax.data.decode import decode_image
from snnvit_jax.data.sources.splits import parse_split

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp"),
    *(".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFolder:
    """Image files by random access to {"image": uint8 [H, W, 3], "label": int}.

    All paths lie in one string of bytes, because a million objects would be slow to send to a
    worker process and would be copied there page by page.

    Attributes:
      folder: of the split.
      class_names: names of its sub-folders, sorted; a label is a place among them.
      paths: of all images relative to the folder, one after the other, encoded for the file system.
      ends: [N] int64, where each of them ends.
      labels: [N] int32.
      channels: of the decoded images.
    """

    folder: pathlib.Path
    class_names: tuple[str, ...]
    paths: bytes
    ends: np.ndarray
    labels: np.ndarray
    channels: int = 3

    def __len__(self):
        """Number of images."""
        return len(self.labels)

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index):
        """Returns {"image", "label"}; raises `DamagedImage` naming the path."""
        index = range(len(self))[operator.index(index)]
        path = self.path(index)
        image = decode_image(path.read_bytes(), path, self.channels)
        return {"image": image, "label": int(self.labels[index])}

    def label(self, index):
        """Returns the label of an example without decoding its image.

        Args:
          index: in [0, N).
        """
        return int(self.labels[index])

    def path(self, index):
        """Returns the path of an image.

        Args:
          index: in [0, N).
        """
        start = self.ends[index - 1] if index else 0
        return self.folder / os.fsdecode(self.paths[start : self.ends[index]])


def open_folder(root, split):
    """Lists the images of one split.

    Hidden files and folders, and files without one of `EXTENSIONS` (in upper or lower case), do not
    count. Images come sorted by path. A slice is taken from a fixed pseudo-random order, that of a
    hash of the paths, so that each part has its share of every class.

    Args:
      root: folder with a sub-folder for each split.
      split: name of a sub-folder, perhaps sliced: see `splits.parse_split`.

    Returns:
      An `ImageFolder`.

    Raises:
      FileNotFoundError: if there is no such folder, naming those there are.
      ValueError: if it has no class folders, or one without images.
    """
    part = parse_split(split)
    folder = _split_folder(pathlib.Path(root).expanduser(), part.name)
    class_names = _folders(folder)
    if not class_names:
        raise ValueError(
            f"{folder} holds no class folders; images are expected as {folder}/CLASS/IMAGE.jpg"
        )
    paths = [_class_paths(folder, name) for name in class_names]
    labels = np.repeat(np.arange(len(paths), dtype=np.int32), [len(found) for found in paths])
    paths = [path for found in paths for path in found]
    chosen = range(len(paths)) if part.whole else _mixed_part(paths, *part.bounds(len(paths)))
    paths = [paths[index] for index in chosen]
    ends = np.cumsum([len(path) for path in paths], dtype=np.int64)
    return ImageFolder(folder, class_names, b"".join(paths), ends, labels[list(chosen)])


def _split_folder(root, name):
    if not root.is_dir():
        raise FileNotFoundError(
            f"no folder {root}; give the one that holds a folder for each split"
        )
    folder = root / name
    if not folder.is_dir():
        found = ", ".join(_folders(root)[:10]) or "no folders"
        raise FileNotFoundError(f"no folder {folder} for split {name!r}; {root} holds {found}")
    return folder


def _folders(folder):
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    return tuple(sorted(name for name in names if not name.startswith(".")))


def _class_paths(folder, class_name):
    """Paths of a class's images relative to the split's folder, encoded and sorted."""
    found = []
    for parent, folders, files in os.walk(folder / class_name):
        folders[:] = (name for name in folders if not name.startswith("."))
        relative = os.path.relpath(parent, folder)
        found += [os.path.join(relative, name) for name in files if _is_image(name)]
    if not found:
        raise ValueError(
            f"class folder {folder / class_name} holds no images ({' '.join(EXTENSIONS)}); "
            "fill it or remove it"
        )
    return sorted(os.fsencode(path) for path in found)


def _is_image(name):
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def _mixed_part(paths, start, stop):
    """Sorted indices of the paths at some places of the order of their hashes."""
    keys = [hashlib.blake2b(path, digest_size=16).digest() for path in paths]
    order = sorted(range(len(paths)), key=keys.__getitem__)
    return sorted(order[start:stop])
