"""`Graph`: nodes and initialisers of an ONNX graph as they are added."""

import numpy as np
from onnx import helper, numpy_helper

from snnvit_jax.deployment.onnx.values import Constant, Tensor, is_known

OPSET = 18


class Graph:
    """An ONNX graph under construction.

    Attributes:
      nodes: ONNX nodes, in the order in which they can be computed.
      initialisers: {name: NumPy array}; equal arrays are kept once.
    """

    def __init__(self, images, batch):
        """Begins with a graph that computes nothing.

        Args:
          images: `Tensor` of the input, whose first axis is the batch.
          batch: JAX's symbolic length of that axis.
        """
        self.nodes, self.initialisers = [], {}
        self._names, self._arrays, self._sizes = set(), {}, {}
        self._images, self._batch = images, batch
        self._names.add(images.name)

    def add(self, operation, inputs, shape, dtype, **attributes):
        """Adds a node and returns what it computes, a `Tensor`.

        Args:
          operation: ONNX operator.
          inputs: values or names; None for one left out.
          shape: of the result.
          dtype: of the result.
          **attributes: of the operator.
        """
        names = ["" if x is None else self.name_of(x) for x in inputs]
        name = self.free_name(operation.lower())
        self.nodes.append(helper.make_node(operation, names, [name], name=name, **attributes))
        return Tensor(name, tuple(shape), np.dtype(dtype))

    def name_of(self, value):
        """Returns the name of a value in the graph; a constant becomes an initialiser.

        Args:
          value: a `Constant`, a `Tensor` or a name.
        """
        if isinstance(value, str):
            return value
        return self._initialiser(value) if isinstance(value, Constant) else value.name

    def numbers(self, values):
        """Returns the name of an initialiser of whole numbers, as shapes and axes are given.

        Args:
          values: whole numbers.
        """
        return self._initialiser(Constant(np.asarray(values, np.int64)))

    def shape(self, shape):
        """Returns the name of a shape as a vector that is known when the program runs.

        Args:
          shape: whole numbers, and multiples of the batch size.
        """
        if is_known(shape):
            return self.numbers(shape)
        parts = [self.numbers([n]) if is_known([n]) else self._size(n) for n in shape]
        return self.add("Concat", parts, (len(shape),), np.int64, axis=0).name

    def whole(self, value, shape):
        """Returns a value with all of its numbers.

        Args:
          value: a `Constant` or a `Tensor`.
          shape: of its variable.
        """
        if tuple(value.shape) == tuple(shape):
            return value
        if isinstance(value, Constant) and is_known(shape):
            return Constant(np.broadcast_to(value.array, shape))
        return self.add("Expand", [value, self.shape(shape)], shape, value.dtype)

    def free_name(self, stem):
        """Returns a name that nothing in the graph has yet.

        Args:
          stem: that it begins with.
        """
        number = len(self._names)
        name = stem if stem not in self._names else f"{stem}_{number}"
        self._names.add(name)
        return name

    def tensors(self):
        """Returns the initialisers as ONNX keeps them."""
        return [numpy_helper.from_array(x, name) for name, x in self.initialisers.items()]

    def _initialiser(self, constant):
        array = np.array(constant.array, order="C")  # not np.ascontiguousarray: numbers stay such
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._arrays:
            self._arrays[key] = self.free_name(constant.name or "constant")
            self.initialisers[self._arrays[key]] = array
        return self._arrays[key]

    def _size(self, length):
        """The name of a vector of one number, a multiple of the batch size."""
        factor, rest = length // self._batch, length % self._batch
        if not (is_known([factor]) and is_known([rest])) or rest:
            raise ValueError(f"cannot write the length {length} as a multiple of the batch size")
        if factor not in self._sizes:
            size = self.add("Shape", [self._images], (1,), np.int64, start=0, end=1)
            if factor != 1:
                size = self.add("Mul", [size, self.numbers([factor])], (1,), np.int64)
            self._sizes[factor] = size.name
        return self._sizes[factor]
