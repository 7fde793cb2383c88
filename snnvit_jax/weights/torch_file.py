"""Reading PyTorch checkpoint files without PyTorch.

A checkpoint (torch.save since PyTorch 1.6) is a ZIP archive: a pickle of the object, in which every
tensor refers to a file of raw numbers beside it. Only tensors and plain containers are rebuilt; any
other class that the pickle names becomes an empty stand-in, so that no foreign code ever runs.
"""

import collections
import pathlib
import pickle
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
_DAMAGE = (AttributeError, EOFError, IndexError, KeyError, TypeError, ValueError)
# Where training scripts keep the weights in what they save, the first found wins.
_WEIGHT_KEYS = ("state_dict", "model", "model_state_dict", "net")
_PARALLEL_PREFIX = "module."


def read_state_dict(path):
    """Returns the weights in a PyTorch checkpoint.

    Args:
      path: file written by `torch.save`: a state dict, or a dictionary that holds one under
        "state_dict", "model", "model_state_dict" or "net". The prefix "module." of distributed
        training is dropped.

    Returns:
      {name: array}, floating-point ones as float32.

    Raises:
      ValueError: if the file is no such checkpoint, is damaged, or holds no weights.
    """
    try:  # what a damaged or foreign pickle raises can be almost anything
        with zipfile.ZipFile(path) as archive:
            content = _Unpickler(archive).load()
    except (OSError, zipfile.BadZipFile, pickle.UnpicklingError, *_DAMAGE) as error:
        raise ValueError(
            f"{str(path)!r} is not a PyTorch checkpoint of version 1.6 or later ({error}); "
            "save it again with a newer PyTorch, or as safetensors"
        ) from error
    return _weights(content, pathlib.Path(path))


def _weights(content, path):
    for key in _WEIGHT_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    arrays = content if isinstance(content, dict) else {}
    arrays = {str(n): a for n, a in arrays.items() if isinstance(a, np.ndarray)}
    if not arrays:
        raise ValueError(f"{str(path)!r} holds no weights; expected one of {_WEIGHT_KEYS}")
    return {name.removeprefix(_PARALLEL_PREFIX): _as_float32(a) for name, a in arrays.items()}


def _as_float32(array):
    is_float = array.dtype == ml_dtypes.bfloat16 or np.issubdtype(array.dtype, np.floating)
    return array.astype(np.float32) if is_float else array


class _StandIn(dict):
    """Takes the place of any class that is not rebuilt; accepts and forgets everything."""

    def __init__(self, *_, **__):
        super().__init__()

    def __setstate__(self, state):
        """Forgets the state."""


class _Unpickler(pickle.Unpickler):
    """Rebuilds tensors as NumPy arrays and containers as they are."""

    def __init__(self, archive):
        self._archive = archive
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("it has no data.pkl")
        self._root = names[0].removesuffix("data.pkl")
        super().__init__(archive.open(names[0]))

    def find_class(self, module, name):
        """Returns what stands for a class or function that the pickle names."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        return _DTYPES.get(name, _StandIn) if module == "torch" else _StandIn

    def persistent_load(self, reference):
        """Returns the raw numbers of a tensor: ("storage", type, file, device, count)."""
        _, dtype, key, _, count = reference
        if dtype is _StandIn:
            raise ValueError("a tensor has an unknown type")
        data = self._archive.read(f"{self._root}data/{key}")
        return np.frombuffer(data, dtype, count)


def _rebuild_tensor(storage, offset, shape, stride, *_):
    steps = [step * storage.itemsize for step in stride]
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if 0 not in shape and (min(stride, default=0) < 0 or last >= storage.size):
        raise ValueError("a tensor reaches beyond its numbers")
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy()
