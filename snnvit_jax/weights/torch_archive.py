"""What a PyTorch checkpoint file holds, as NumPy arrays and plain containers, without PyTorch.

A checkpoint (torch.save since PyTorch 1.6) is a ZIP archive: a pickle of the object, in which every
tensor refers to a file of raw numbers beside it. Only tensors and plain containers are rebuilt; any
other class that the pickle names becomes an empty stand-in, so that no foreign code ever runs.

A file is taken for damaged, or for something else, until it has shown otherwise: checksums are
compared before anything is rebuilt, and nothing is allocated that the file has no numbers for.
"""

import collections
import errno
import io
import math
import pickle
import pickletools
import sys
import zipfile

import ml_dtypes
import numpy as np

_DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# What deflation shrinks by at most (RFC 1951: 258 bytes from 2 bits), rounded up.
_MOST_INFLATION = 1040
# Elements of a tensor that repeats its numbers (stride 0), if it has more than numbers.
_MOST_REPEATED = 1 << 24


class StandIn(dict):
    """Takes the place of any class that is not rebuilt; accepts everything, keeps only items."""

    __hash__ = object.__hash__  # it may be a key, as members of an Enum are

    def __init__(self, *_, **__):
        super().__init__()

    def append(self, item):
        """Forgets an item of what was a list."""

    def extend(self, items):
        """Forgets items."""

    def __setstate__(self, state):
        """Forgets the state."""


def read_content(path):
    """Returns the object in a PyTorch checkpoint, its tensors as arrays [...] of their own type.

    Args:
      path: file written by `torch.save`.

    Returns:
      Dictionaries, lists, strings, numbers and arrays; a `StandIn` for everything else.

    Raises:
      OSError: if there is no such file, or it cannot be read.
      ValueError: if it is no such checkpoint, or damaged.
    """
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _Unpickler(archive, file.seek(0, io.SEEK_END)).load()
        except MemoryError:  # of the machine: what the file asks for was found to be in it
            raise
        except Exception as error:  # what a damaged or foreign file raises can be anything
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise  # of the disk; damaged offsets are invalid arguments
            raise ValueError(
                f"{str(path)!r} is not a PyTorch checkpoint of version 1.6 or later, or damaged "
                f"({type(error).__name__}: {error}); copy it again, or save it again with a newer "
                "PyTorch, or as safetensors"
            ) from error


class _Unpickler(pickle.Unpickler):
    """Rebuilds tensors as NumPy arrays and containers as they are."""

    def __init__(self, archive, file_size):
        self._archive, self._file_size = archive, file_size
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("it has no data.pkl")
        self._root = names[0].removesuffix("data.pkl")
        self._swapped = self._is_big_endian() == (sys.byteorder == "little")
        # Read as a whole, because the checksum is compared at its end.
        content = self._read("data.pkl")
        _check_pickle(content)
        super().__init__(io.BytesIO(content))

    def find_class(self, module, name):
        """Returns what stands for a class or function that the pickle names.

        Never one of this library's or another's own: a pickle can change what it gets.
        """
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: _rebuild_tensor(*arguments)
        if module == "torch._utils" and name.startswith("_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "torch" and name in _DTYPES:
            return name
        return type("StandIn", (StandIn,), {})

    def persistent_load(self, reference):
        """Returns the raw numbers of a tensor: ("storage", type, file, device, count)."""
        _, kind, key, _, count = reference
        if not isinstance(kind, str):
            raise ValueError("a tensor has an unknown type")
        dtype, data = np.dtype(_DTYPES[kind]), self._read(f"data/{key}")
        if not _is_count(count) or count * dtype.itemsize > len(data):
            raise ValueError(f"{len(data)} bytes do not hold {count} numbers of {dtype}")
        raw = np.frombuffer(data, f"u{dtype.itemsize}", count)
        return (raw.byteswap() if self._swapped else raw).view(dtype)

    def _read(self, name):
        """Bytes of a member, which has its checksum; KeyError if there is none."""
        info = self._archive.getinfo(self._root + name)
        fits = info.header_offset + info.compress_size <= self._file_size
        if not fits or info.file_size > _MOST_INFLATION * info.compress_size:
            raise ValueError(f"{info.filename!r} is larger than the file")
        return self._archive.read(info)

    def _is_big_endian(self):
        """Whether the machine that wrote it was; older files do not say, and were not."""
        if f"{self._root}byteorder" not in self._archive.namelist():
            return False
        order = self._read("byteorder")
        if order not in (b"little", b"big"):
            raise ValueError(f"unknown byte order {order!r}")
        return order == b"big"


def _check_pickle(content):
    """Raises ValueError if a pickle is cut short or numbers more objects than it can hold.

    The unpickler itself would first ask for the memory.
    """
    for code, argument, _ in pickletools.genops(content):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > len(content):
            raise ValueError(f"object number {argument} in {len(content)} bytes")


def _rebuild_tensor(storage, offset, shape, stride, *_):
    """A tensor as an array of its own: numbers at offset + sum of place * stride, in elements."""
    shape, stride = tuple(shape), tuple(stride)
    if not all(map(_is_count, (offset, *shape, *stride))) or len(shape) != len(stride):
        raise ValueError(f"a tensor has {offset=}, {shape=}, {stride=}")
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if offset > storage.size or (0 not in shape and last >= storage.size):
        raise ValueError(
            f"a tensor of {offset=}, {shape=}, {stride=} reaches beyond its {storage.size} numbers"
        )
    if math.prod(shape) > max(storage.size, _MOST_REPEATED):
        raise ValueError(f"a tensor of {shape=} repeats its {storage.size} numbers too often")
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    # Of an axis with one place the stride does not matter, and may be any number.
    steps = [step * storage.itemsize if n > 1 else 0 for n, step in zip(shape, stride, strict=True)]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy()


def _is_count(number):
    return type(number) is int and number >= 0
