"""Images kept as files in a folder for each class: root/split/class/anything/image.JPEG."""

import dataclasses
import operator
import os
import pathlib

import numpy as np

from snnvit_jax.common.paths import expanded
from snnvit_jax.data.decode import DamagedImage, decode_image
from snnvit_jax.data.sources.classes import class_files, class_folders, folder_names
from snnvit_jax.data.sources.splits import mixed_part, parse_split
from snnvit_jax.data.sources.walk import leads_nowhere

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
    folder = _split_folder(expanded(root), part.name)
    classes = class_folders(folder, _is_image)
    if not classes:
        raise ValueError(
            f"{folder} holds no class folders; images are expected as {folder}/CLASS/IMAGE.jpg"
        )
    paths = [_class_paths(folder, names) for names in classes.values()]
    labels = np.repeat(np.arange(len(paths), dtype=np.int32), [len(found) for found in paths])
    paths = [path for found in paths for path in found]
    chosen = range(len(paths)) if part.whole else mixed_part(paths, *part.bounds(len(paths)))
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
        found = ", ".join(folder_names(root)[:10]) or "no folders"
        raise FileNotFoundError(f"no folder {folder} for split {name!r}; {root} holds {found}")
    return folder


def _class_paths(folder, names):
    found = class_files(folder, names, _is_image)
    if not found:
        raise ValueError(
            f"class folder {folder / names[0]} holds no images ({' '.join(EXTENSIONS)}); "
            "fill it or remove it"
        )
    return found


def _read(path):
    """Bytes of a file; one that is a link to nothing is a damaged image."""
    try:
        return path.read_bytes()
    except OSError as error:
        if leads_nowhere(path, error):
            raise DamagedImage(
                f"{path} is damaged: a link to {os.readlink(path)!r}, where there is nothing"
            ) from error
        raise


def _is_image(name):
    return os.path.splitext(name)[1].lower() in EXTENSIONS
