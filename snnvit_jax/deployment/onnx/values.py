"""What an equation reads and writes while a program is translated.

A value may be smaller than its variable: along an axis of length 1 it stands for the same numbers
everywhere, as ONNX and NumPy broadcast. So nothing is copied until a node needs the whole.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """Numbers that are known when the program is translated.

    Attributes:
      array: NumPy array.
      name: of the weight that it is; None for others.
    """

    array: np.ndarray
    name: str | None = None

    @property
    def shape(self):
        """Of the array."""
        return self.array.shape

    @property
    def dtype(self):
        """Of the array."""
        return self.array.dtype


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """What a node computes.

    Attributes:
      name: in the graph.
      shape: whole numbers, and expressions in the batch size.
      dtype: NumPy dtype.
    """

    name: str
    shape: tuple
    dtype: np.dtype


def common_shape(*shapes):
    """Returns the shape that values of these shapes have when they are broadcast together.

    Args:
      *shapes: of whole numbers, and expressions in the batch size; all that are not 1 agree.
    """
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(next((n for n in axis if not is_one(n)), 1) for axis in zip(*padded, strict=True))


def is_one(size):
    """Returns whether a length is the number 1; one that depends on the batch size is not.

    Args:
      size: whole number, or an expression in the batch size.
    """
    return isinstance(size, (int, np.integer)) and size == 1


def is_known(shape):
    """Returns whether a shape does not depend on the batch size.

    Args:
      shape: of whole numbers, and expressions in the batch size.
    """
    return all(isinstance(size, (int, np.integer)) for size in shape)
