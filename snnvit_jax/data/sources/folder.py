"""Images kept as files in a folder for each class: root/split/class/anything/image.JPEG."""

import dataclasses
import hashlib
import operator
import os
import pathlib
import unicodedata

import numpy as np

from snnvit_jax.data.decode import DamagedImage, decode_image
from snnvit_jax.data.sources.splits import parse_split
from snnvit_jax.data.sources.walk import (
    LEADS_NOWHERE,
    files_below,
    list_folder,
    warn_of_dangling,
)

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
      class_names: names of its sub-folders in Unicode's composed form (NFC), sorted; a label is a
        place among them.
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
        image = decode_image(_read(path), path, self.channels)
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
    count. Links to folders are followed (`walk.files_below`); an image that is a link to nothing is
    a damaged one. Folders whose names are two Unicode forms of one text are one class. Images come
    sorted by class and path. A slice is taken from a fixed pseudo-random order, that of a hash of
    the paths, so that each part has its share of every class.

    Args:
      root: folder with a sub-folder for each split.
      split: name of a sub-folder, perhaps sliced: see `splits.parse_split`.

    Returns:
      An `ImageFolder`.

    Raises:
      FileNotFoundError: if there is no such folder, naming those there are.
      ValueError: if it has no class folders, one without images, or a link to nothing in the place
        of one.
    """
    part = parse_split(split)
    folder = _split_folder(pathlib.Path(root).expanduser(), part.name)
    classes = _class_folders(folder)
    if not classes:
        raise ValueError(
            f"{folder} holds no class folders; images are expected as {folder}/CLASS/IMAGE.jpg"
        )
    paths = [_class_paths(folder, names) for names in classes.values()]
    labels = np.repeat(np.arange(len(paths), dtype=np.int32), [len(found) for found in paths])
    paths = [path for found in paths for path in found]
    chosen = range(len(paths)) if part.whole else _mixed_part(paths, *part.bounds(len(paths)))
    paths = [paths[index] for index in chosen]
    ends = np.cumsum([len(path) for path in paths], dtype=np.int64)
    return ImageFolder(folder, tuple(classes), b"".join(paths), ends, labels[list(chosen)])


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
    return sorted(name for name, kind in list_folder(folder) if "folder" in kind)


def _class_folders(folder):
    """{class name: names of its folders}, sorted."""
    for name, kind in list_folder(folder):
        if kind == "link to nothing" and not _is_image(name):
            raise ValueError(
                f"class folder {str(folder / name)!r} is a link to "
                f"{os.readlink(folder / name)!r}, where there is nothing; mend or remove it"
            )
    classes = {}
    for name in _folders(folder):
        classes.setdefault(unicodedata.normalize("NFC", name), []).append(name)
    return dict(sorted(classes.items()))


def _class_paths(folder, names):
    """Paths of a class's images relative to the split's folder, encoded and sorted."""
    found = []
    for name in names:
        for path in files_below(folder / name):
            if _is_image(path):
                found.append(os.path.join(name, path))
            elif not os.path.exists(folder / name / path):
                warn_of_dangling(folder / name / path)
    if not found:
        raise ValueError(
            f"class folder {folder / names[0]} holds no images ({' '.join(EXTENSIONS)}); "
            "fill it or remove it"
        )
    return sorted(os.fsencode(path) for path in found)


def _read(path):
    """Bytes of a file; one that is a link to nothing is a damaged image."""
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno in LEADS_NOWHERE and path.is_symlink():
            raise DamagedImage(
                f"{path} is damaged: a link to {os.readlink(path)!r}, where there is nothing"
            ) from error
        raise


def _is_image(name):
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _mixed_part(paths, start, stop):
    """Sorted indices of the paths at some places of the order of their hashes."""
    keys = [hashlib.blake2b(path, digest_size=16).digest() for path in paths]
    order = sorted(range(len(paths)), key=keys.__getitem__)
    return sorted(order[start:stop])
