"""Arrays of a NumPy archive (.npz), read or left on disk, and never damaged ones.

An archive is a ZIP file (PKWARE APPNOTE 6.3), in which every array has a CRC-32. Whoever maps an
array into memory, or reads less than all of it, does not see whether that holds; so it is compared
once, beforehand.
"""

import contextlib
import errno
import math
import struct
import zipfile

import numpy as np

_CHUNK = 1 << 20  # bytes
_END_RECORD = 22  # bytes, without the comment
# What deflation shrinks by at most (RFC 1951: 258 bytes from 2 bits), rounded up.
_MOST_INFLATION = 1040


def array_names(path):
    """Returns the names of the arrays in an archive.

    Args:
      path: of the file.

    Raises:
      ValueError: if it is no archive, or the list of what it holds is damaged.
    """
    with _refusing(f"{path} is no .npz archive"), zipfile.ZipFile(path) as archive:
        _check_list(archive)
        files = archive.namelist()
    return [name.removesuffix(".npy") for name in files if name.endswith(".npy")]


def open_array(path, key, check=True):
    """Returns one array of an archive, mapped from the disk if it is stored there as it is.

    Args:
      path: of the file.
      key: name of the array.
      check: whether to read a mapped array once to compare its checksum; one that is read into
        memory is always checked.

    Raises:
      ValueError: naming the array, if it cannot be read, or is damaged.
    """
    with _refusing(f"array {key!r} of {path} cannot be read"), zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{key}.npy")
        _check_size(info, archive)
        shape, fortran_order, dtype, header = _read_header(archive, info)
        if info.compress_type != zipfile.ZIP_STORED or 0 in shape:
            return _read(archive, info)
        if check:
            _check_sum(archive, info)
        order = "F" if fortran_order else "C"
        return np.memmap(path, dtype, "r", _start(path, info) + header, shape, order)


def _check_list(archive):
    """Raises an error if the list of records at the end, which has no checksum, does not hold.

    A flipped bit there can change a name, or hide the records that follow in a comment.
    """
    for info in archive.infolist():
        archive.open(info).close()  # compares the name in the list with that of the record
    # APPNOTE, section 4.3.16; a number too large for the field is elsewhere.
    archive.fp.seek(-_END_RECORD - len(archive.comment), 2)
    signature, count = struct.unpack("<4s6xH10x", archive.fp.read(_END_RECORD))
    if signature != b"PK\5\6" or count not in (len(archive.infolist()), 0xFFFF):
        raise ValueError(f"it lists {len(archive.infolist())} arrays of {count}")


def _check_size(info, archive):
    """Raises ValueError if a record says that it is larger than it can be."""
    end = archive.fp.seek(0, 2)
    fits = info.header_offset + info.compress_size <= end
    if not fits or info.file_size > _MOST_INFLATION * info.compress_size:
        raise ValueError("it is larger than the file")


def _read_header(archive, info):
    """(shape, whether in Fortran order, dtype, bytes of the header) of an array."""
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read(member)
        header = member.tell()
    if dtype.hasobject:
        raise ValueError(
            "it holds Python objects, which may do anything when they are read; store numbers, or "
            "names with dtype=str"
        )
    if math.prod(shape) * dtype.itemsize != info.file_size - header:
        raise ValueError(f"{dtype} {shape} does not take {info.file_size - header} bytes")
    return shape, fortran_order, dtype, header


def _read(archive, info):
    """The array in memory. Its last byte is that of the record, so the checksum is compared."""
    with archive.open(info) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        member.read()  # of an empty array, nothing has been read yet
    return array


def _check_sum(archive, info):
    """Reads a record to its end, where zipfile compares the checksum."""
    with archive.open(info) as member:
        while member.read(_CHUNK):
            pass


def _start(path, info):
    """Place of a stored record's bytes in an archive (APPNOTE, section 4.3.7)."""
    with open(path, "rb") as file:
        file.seek(info.header_offset + 26)
        name_length, extra_length = np.frombuffer(file.read(4), "<u2").tolist()
    return info.header_offset + 30 + name_length + extra_length


@contextlib.contextmanager
def _refusing(what):
    """Turns whatever a damaged file raises into a ValueError."""
    try:
        yield
    except MemoryError:  # of the machine: no size is believed that the file does not have
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # of the disk; damaged offsets are invalid arguments
        raise ValueError(f"{what}: {error}; copy the file again, or write it again") from error
