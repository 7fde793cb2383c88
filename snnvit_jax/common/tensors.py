"""Named tensors as bytes, and back: the safetensors format, with bfloat16.

The library's own NumPy reader does not know bfloat16, which its writer writes.
"""

import jax.numpy as jnp
import numpy as np

_TYPES = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16},
    **{"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8},
    **{"U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_},
}


def pack(tensors, about=None):
    """Returns named tensors as the content of a safetensors file.

    Args:
      tensors: {name: array}.
      about: {name: text} to hold beside them; None for nothing.
    """
    from safetensors import numpy as safetensors  # late: importing the package must not need it

    # The writer copies memory as it lies, so strides must be those of the shape. (Not
    # np.ascontiguousarray, which makes a vector of a number.)
    return safetensors.save({n: np.asarray(x, order="C") for n, x in tensors.items()}, about)


def unpack(content, where):
    """Returns {name: NumPy array} of the content of a safetensors file.

    Args:
      content: bytes.
      where: what to call it in an error.

    Raises:
      ValueError: if it is damaged, or holds tensors of a type that NumPy and JAX do not have.
    """
    import safetensors  # late: importing the package must not need it

    try:
        found = safetensors.deserialize(content)
    except Exception as error:  # the library's own error class is not a ValueError
        raise ValueError(f"{where} is not a safetensors file: {error}") from error
    unknown = [(name, tensor["dtype"]) for name, tensor in found if tensor["dtype"] not in _TYPES]
    if unknown:
        name, kind = unknown[0]
        raise ValueError(f"{where} holds {name!r} as {kind}; store it as F32, F16 or BF16")
    return {
        name: np.frombuffer(tensor["data"], _TYPES[tensor["dtype"]]).reshape(tensor["shape"])
        for name, tensor in found
    }
