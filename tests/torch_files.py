"""PyTorch checkpoint files, written without PyTorch."""

import collections
import io
import pickle
import zipfile

import numpy as np

STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


class Named:
    """Pickled as the global name of a class or function of another module."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """Pickled as a call of a `Named` with arguments."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Storage:
    """Pickled as a reference to a file of raw numbers."""

    def __init__(self, key, array, count=None):
        self.key, self.array, self.count = key, array, array.size if count is None else count


def tensor(key, array, offset=0, shape=None, stride=None, count=None):
    """A tensor that refers to the file data/KEY; shape and stride are those of the array."""
    array = np.ascontiguousarray(array)
    steps = tuple(step // array.itemsize for step in array.strides)
    return Call(
        Named("torch._utils", "_rebuild_tensor_v2"),
        Storage(key, array, count),
        offset,
        array.shape if shape is None else shape,
        steps if stride is None else stride,
        False,
        collections.OrderedDict(),
    )


class _Pickler(pickle._Pickler):
    """Python's own, whose way of writing names can be changed."""

    dispatch = {**pickle._Pickler.dispatch}  # noqa: RUF012 (as the class it replaces)

    def __init__(self, file, members):
        super().__init__(file, 2)
        self.members = members

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        self.members[f"data/{value.key}"] = value.array.tobytes()
        kind = Named("torch", STORAGES[str(value.array.dtype)])
        return ("storage", kind, value.key, "cpu", value.count)

    def save_named(self, value):
        self.write(f"c{value.module}\n{value.name}\n".encode())

    def save_reduce(self, func, *args, **kwargs):
        if not isinstance(func, Named):
            return super().save_reduce(func, *args, **kwargs)
        self.save(func)
        self.save(args[0])
        return self.write(pickle.REDUCE)

    dispatch[Named] = save_named


def write(path, content, compression=zipfile.ZIP_STORED, byteorder=b"little"):
    """Writes a file as torch.save does, of dictionaries, numbers and `tensor`s."""
    members = {}
    text = io.BytesIO()
    _Pickler(text, members).dump(content)
    with zipfile.ZipFile(path, "w", compression) as archive:
        members = {"data.pkl": text.getvalue(), "byteorder": byteorder, "version": b"3\n"} | members
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data, compression)
    return path


def write_arrays(path, arrays, **options):
    """Writes a state dict of arrays."""
    tensors = {name: tensor(str(i), a) for i, (name, a) in enumerate(arrays.items())}
    return write(path, tensors, **options)
