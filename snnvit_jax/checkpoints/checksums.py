"""Checksums of a folder's files, in the format of the sha256sum program.

Array files hold no checksum of their own data: a byte that flips on a disk becomes another number.
The sums of checkpoints/7 are in checkpoints/7.sha256; `sha256sum -c 7.sha256` checks them too.
"""

import hashlib

from snnvit_jax.common import files

SUFFIX = ".sha256"


def path_for(folder):
    """Returns the path of the file that holds a folder's sums, beside it.

    Args:
      folder: pathlib path.
    """
    return folder.with_name(folder.name + SUFFIX)


def write(folder):
    """Writes the SHA-256 of every file in a folder, such that a crash never leaves half of them.

    Args:
      folder: pathlib path; nothing may write to it any more.

    Raises:
      OSError: if a file cannot be read, or the sums cannot be written.
    """
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{_sha256(path)}  {path.relative_to(folder.parent).as_posix()}\n" for path in found]
    files.write_text(path_for(folder), "".join(lines))


def check(folder):
    """Compares a folder's files with the sums that `write` left.

    Args:
      folder: pathlib path.

    Returns:
      Whether there are sums of all its files: an empty list, as a full disk may leave it, says
      nothing.

    Raises:
      ValueError: naming the first file that is missing or holds something else, or the file of the
        sums if it is no list of them.
    """
    sums = path_for(folder)
    if not sums.exists():
        return False
    listed = set()
    for line in sums.read_bytes().splitlines():
        expected, _, name = line.decode(errors="replace").partition("  ")
        path = folder.parent / name
        if not name or not path.is_file():
            raise ValueError(f"{sums.name} lists {name!r}, which is no file")
        if _sha256(path) != expected:
            raise ValueError(f"{path} is not what was written: its SHA-256 differs")
        listed.add(path)
    return not {path for path in folder.rglob("*") if path.is_file()} - listed


def remove_orphans(directory):
    """Removes the sums of folders that exist no more.

    Args:
      directory: pathlib path of the folder that holds the folders.
    """
    for sums in directory.glob("*" + SUFFIX):
        if not (directory / sums.name.removesuffix(SUFFIX)).exists():
            sums.unlink()


def _sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
