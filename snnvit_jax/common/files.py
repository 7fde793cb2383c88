"""Files that a crash, or a power cut, leaves whole: the old content or the new one, never less.

A rename alone does not do: a file system may write the new name to disk before the content, and a
power cut in between leaves an empty file under the right name. So the content is flushed first,
then the file gets its name, then the folder that holds the name is flushed ("All File Systems Are
Not Created Equal", Pillai et al., OSDI 2014). Imports nothing of this package.
"""

import contextlib
import errno
import os
import pathlib
import secrets

# What a file system answers that cannot flush a folder, as some network file systems cannot.
_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP)


def write_bytes(path, content):
    """Writes a file at once and for good.

    Whoever reads it meanwhile, and whatever happens to the machine, sees the old content or the new
    one. Behind a symbolic link it is the file that is replaced, not the link.

    Args:
      path: file to write; its folder must exist.
      content: bytes.

    Raises:
      OSError: if it cannot be written; what was there before is left as it was.
    """
    path = pathlib.Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is no regular file and cannot be replaced", str(path))
    if not path.parent.is_dir():  # else the error would name a file that nobody has heard of
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(path.parent))
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            flush(file)
        replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_text(path, text):
    """Writes a text file in UTF-8, as `write_bytes` does.

    Args:
      path: file to write; its folder must exist.
      text: its content.

    Raises:
      OSError: if it cannot be written.
    """
    write_bytes(path, text.encode())


def replace(source, target):
    """Gives a file or folder another name, also on disk.

    Args:
      source: path; what it holds has been flushed.
      target: path on the same file system; what was there before is gone.

    Raises:
      OSError: if it cannot be renamed.
    """
    source, target = pathlib.Path(source), pathlib.Path(target)
    os.replace(source, target)
    flush_folder(target.parent)
    if source.parent != target.parent:
        flush_folder(source.parent)


def flush(file):
    """Makes sure that what was written to an open file is on disk.

    Args:
      file: open for writing.
    """
    file.flush()
    os.fsync(file.fileno())


def flush_folder(folder):
    """Makes sure that the names in a folder are on disk, where its file system can do that.

    Args:
      folder: path.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
    finally:
        os.close(descriptor)


def flush_tree(folder):
    """Makes sure that every file and folder inside a folder is on disk, and the folder itself.

    Args:
      folder: path; nothing writes to it any more.
    """
    for parent, _, names in os.walk(folder):
        for path in (os.path.join(parent, name) for name in names):
            if os.path.isfile(path):  # and no link to nowhere, nor a pipe
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        flush_folder(parent)
    flush_folder(pathlib.Path(folder).parent)


def make_folder(folder):
    """Creates a folder with all above it, also on disk; one that exists is left as it is.

    Args:
      folder: path.

    Raises:
      OSError: if it cannot be created.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        flush_folder(folder.parent)
