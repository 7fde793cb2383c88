"""All files below a folder, through links, each folder once."""

import errno
import os
import warnings

# What asking for the target of a link answers if it leads nowhere, or in a circle.
LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def files_below(folder):
    """Returns the paths of all files in a folder and in those below it, relative to it, unsorted.

    Links to folders are followed. A folder that can be reached in several ways counts once: by its
    own path where it has one, else by the first link in the order of their paths; so a link to a
    folder that holds it leads to nothing new. Links that lead nowhere count as files. Hidden files
    and folders do not count, nor does what is neither file, folder nor link.

    Args:
      folder: path.

    Raises:
      OSError: if a folder cannot be read.
    """
    seen, files, links, pending = _holders(folder), [], [], [""]
    while pending or links:
        if not pending:
            links.sort(reverse=True)
            pending.append(links.pop())
        relative = pending.pop()
        if _is_new(os.path.join(folder, relative), seen):
            for name, kind in list_folder(os.path.join(folder, relative)):
                place = {"folder": pending, "link to folder": links}.get(kind, files)
                place.append(os.path.join(relative, name))
    return files


def list_folder(folder):
    """Yields (name, kind) of what a folder holds, except what is hidden.

    Args:
      folder: path.

    Yields:
      A name and "folder", "link to folder", "file" or "link to nothing".
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            kind = _kind(entry)
            if kind and not entry.name.startswith("."):
                yield entry.name, kind


def leads_nowhere(path, error):
    """Returns whether a file cannot be read because it is a link to nothing.

    Args:
      path: of the file.
      error: the OSError that reading it raised.
    """
    return error.errno in LEADS_NOWHERE and os.path.islink(path)


def warn_of_dangling(path):
    """Warns that a link leads nowhere.

    Args:
      path: of the link.
    """
    warnings.warn(
        f"{os.fspath(path)!r} is a link to {os.readlink(path)!r}, where there is nothing; if that "
        "was a folder of images, they are left out",
        stacklevel=3,
    )


def _kind(entry):
    try:
        if entry.is_dir():
            return "link to folder" if entry.is_symlink() else "folder"
        if entry.is_file():
            return "file"
    except OSError as error:
        if error.errno not in LEADS_NOWHERE:
            raise
    return "link to nothing" if entry.is_symlink() and not os.path.exists(entry.path) else None


def _holders(folder):
    """Identities of all folders that hold one, by its path as it is written and as it is."""
    paths = {os.path.abspath(folder), os.path.realpath(folder)}
    holders = set()
    for path in paths:
        while path != os.path.dirname(path):
            path = os.path.dirname(path)
            holders.add(_identity(path))
    return holders


def _is_new(folder, seen):
    """Whether a folder has not been seen before; it is now."""
    identity, count = _identity(folder), len(seen)
    seen.add(identity)
    return len(seen) > count


def _identity(path):
    status = os.stat(path)
    return status.st_dev, status.st_ino
