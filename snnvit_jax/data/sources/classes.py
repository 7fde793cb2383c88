"""Examples kept as files in a folder for each class.

Folders whose names are two Unicode forms of one text are one class. Links to folders are followed,
see `walk.files_below`.
"""

import os
import unicodedata

from snnvit_jax.data.sources.walk import files_below, list_folder, warn_of_dangling


def folder_names(folder):
    """Returns the names of the folders in a folder, sorted; hidden ones do not count.

    Args:
      folder: a pathlib path.
    """
    return sorted(name for name, kind in list_folder(folder) if "folder" in kind)


def class_folders(folder, counts):
    """Returns {class name: names of its folders}, sorted.

    Args:
      folder: a pathlib path.
      counts: function of a file's name that says whether the file is an example.

    Raises:
      ValueError: for a link to nothing in the place of a class folder.
    """
    for name, kind in list_folder(folder):
        if kind == "link to nothing" and not counts(name):
            raise ValueError(
                f"class folder {str(folder / name)!r} is a link to "
                f"{os.readlink(folder / name)!r}, where there is nothing; mend or remove it"
            )
    classes = {}
    for name in folder_names(folder):
        classes.setdefault(unicodedata.normalize("NFC", name), []).append(name)
    return dict(sorted(classes.items()))


def class_files(folder, names, counts):
    """Returns the paths of a class's examples, relative to the folder, encoded and sorted.

    Args:
      folder: a pathlib path.
      names: of the class's folders in it.
      counts: as for `class_folders`.
    """
    found = []
    for name in names:
        for path in files_below(folder / name):
            if counts(path):
                found.append(os.path.join(name, path))
            elif not os.path.exists(folder / name / path):
                warn_of_dangling(folder / name / path)
    return sorted(os.fsencode(path) for path in found)
