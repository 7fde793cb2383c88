"""Reads the text of a compiled program: its instructions, what they read and write, where from."""

import functools
import math
import re

_BITS = {"pred": 8, "bf16": 16, "f16": 16, "token": 0, "c64": 64}
_BITS |= {f"{kind}{bits}": bits for kind in "sufc" for bits in (1, 2, 4, 8, 16, 32, 64)}
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_NAME = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")


class Array:
    """An array in a program's text.

    Attributes:
      dtype: for example "bf16".
      dims: sizes.
      layout: what stands in braces behind them.
    """

    def __init__(self, dtype, dims, layout):
        self.dtype, self.layout = dtype, layout or ""
        self.dims = [int(size.lstrip("<=")) for size in dims.split(",") if size]

    @property
    def bytes(self):
        """Size without padding."""
        return math.prod(self.dims) * _BITS[self.dtype] / 8

    @property
    def padded_bytes(self):
        """Size with its two minor axes filled up to tiles, as a TPU keeps it."""
        order, *rest = self.layout.split(":")
        minor = [int(axis) for axis in order.split(",") if axis.strip().isdigit()]
        minor = minor or list(range(len(self.dims)))[::-1]
        tile = re.search(r"T\(([\d,]+)\)", "".join(rest))
        dims = list(self.dims)
        sizes = [int(size) for size in tile.group(1).split(",")] if tile else []
        for axis, size in zip(minor, reversed(sizes), strict=False):
            dims[axis] = -(-dims[axis] // size) * size
        return math.prod(dims) * _BITS[self.dtype] / 8

    @property
    def in_main_memory(self):
        """Whether it lies in the device's main memory, not in that of the core."""
        space = re.search(r"S\((\d+)\)", self.layout)
        return space is None or space.group(1) == "0"


class Instruction:
    """One line of a computation.

    Attributes:
      name: of the result.
      computation: name of the computation that it stands in.
      opcode: for example "fusion".
      type: of the result, as text.
      operands: names of what it reads.
      attributes: what follows the operands.
    """

    def __init__(self, computation, line):
        found = _NAME.match(line)
        self.computation, self.name = computation, found.group(1)
        rest = line[found.end() :]
        end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
        self.type, rest = rest[:end], rest[end:].lstrip()
        self.opcode, _, _ = rest.partition("(")
        end = _closing(rest, len(self.opcode))
        self.operands = re.findall(r"%([\w.\-]+)", rest[:end])
        self.arguments, self.attributes = rest[len(self.opcode) + 1 : end], rest[end + 1 :]

    @functools.cached_property
    def results(self):
        """Every `Array` that it writes."""
        found = _ARRAY.findall(self.type)
        return [Array(*array) for array in found if array[0] in _BITS]

    @property
    def bytes(self):
        """Size of what it writes."""
        return sum(array.bytes for array in self.results)

    @property
    def op_name(self):
        """Name of the traced operation that it comes from."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found.group(1) if found else ""

    @property
    def cycles(self):
        """Cycles that the TPU compiler estimates; None without an estimate."""
        found = re.search(r'"estimated_cycles":"(-?\d+)"', self.attributes)
        return int(found.group(1)) if found else None

    @property
    def calls(self):
        """Name of the computation that a fusion or call runs, or None."""
        found = _CALLED.search(self.attributes)
        return found.group(1) if found else None


class Program:
    """A compiled program.

    Attributes:
      computations: {name: {instruction's name: `Instruction`}}.
      entry: name of the computation where it starts.
    """

    def __init__(self, text):
        self.computations, self.entry, current = {}, None, None
        for line in text.splitlines():
            head = _HEAD.match(line)
            if head:
                current = self.computations[head.group(2)] = {}
                name = head.group(2)
                self.entry = name if head.group(1) else self.entry
            elif line.startswith("}"):
                current = None
            elif current is not None and _NAME.match(line):
                one = Instruction(name, line)
                current[one.name] = one

    def operands(self, instruction):
        """Returns the instructions whose results an instruction reads, in order."""
        known = self.computations[instruction.computation]
        return [known[name] for name in instruction.operands if name in known]

    def inside(self, instruction):
        """Yields an instruction, or what a fusion computes, nested fusions included."""
        if instruction.opcode not in ("fusion", "call", "async-start"):
            yield instruction
            return
        for one in self.computations[instruction.calls].values():
            yield from self.inside(one)

    def running(self, computation=None, times=1):
        """Yields (instruction, how often) of what runs by itself: of the entry, loops, calls."""
        for one in self.computations[computation or self.entry].values():
            called, repeated = [], times
            if one.opcode == "while":
                trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', one.attributes)
                repeated = times * (int(trips.group(1)) if trips else 1)
                called = re.findall(r"body=%?([\w.\-]+)", one.attributes)
            elif one.opcode == "conditional":
                branches = re.search(r"branch_computations=\{([^}]*)\}", one.attributes)
                called = re.findall(r"[\w.\-]+", branches.group(1)) if branches else []
                called += re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", one.attributes)
            elif one.opcode == "call":
                called = [one.calls]
            else:
                yield one, times
            for name in called:
                yield from self.running(name, repeated)


def _closing(text, start):
    """Returns where the bracket that opens at `start` closes."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if not depth:
            return i
    return len(text) - 1
