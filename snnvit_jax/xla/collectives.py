"""What a compiled program sends between devices, read from its text."""

import math
import re
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_BYTES = {"pred": 1, "bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8}
_BYTES |= {f"{sign}{bits}": bits // 8 for sign in "su" for bits in (8, 16, 32)} | {"f32": 4}
_CALL = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


class Collective(NamedTuple):
    """One array that an operation makes from those of all devices.

    Attributes:
      kind: one of `KINDS`.
      dtype: as in the program text, for example "f32".
      shape: of the result on each device.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self):
        """Size of the result on each device."""
        return math.prod(self.shape) * _BYTES[self.dtype]


def collectives(program):
    """Returns every `Collective` of a compiled program, in the order of its text.

    An operation on several arrays counts once for each. An operation in two halves ("-start" and
    "-done") counts once, by its results.

    Args:
      program: text of the compiled program, from `jax.jit(f).lower(...).compile().as_text()`.
    """
    found = []
    for result, kind, start in _CALL.findall(program):
        arrays = _ARRAY.findall(result)
        if start and kind != "all-reduce":  # its type lists the operands, then the results
            arrays = arrays[len(arrays) // 2 :]
        for dtype, sizes in arrays:
            shape = tuple(int(size) for size in sizes.split(",") if size)
            found.append(Collective(kind, dtype, shape))
    return found
