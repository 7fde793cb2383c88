"""Primitives that move, select, repeat or add up numbers along axes."""

import numpy as np

from snnvit_jax.deployment.onnx.values import Constant, is_known


def _operand(graph, equation, inputs, number=0):
    """An input with all of its numbers."""
    return graph.whole(inputs[number], equation.invars[number].aval.shape)


def _result(equation):
    aval = equation.outvars[0].aval
    return tuple(aval.shape), aval.dtype


def reshaped(graph, x, shape):
    """Returns a value with the same numbers in another shape.

    Args:
      graph: a `Graph`.
      x: a whole value.
      shape: of which one length at most depends on the batch size.
    """
    if tuple(x.shape) == tuple(shape):
        return x
    if isinstance(x, Constant) and is_known(shape):
        return Constant(x.array.reshape(shape), x.name)
    lengths = [n if is_known([n]) else -1 for n in shape]
    if lengths.count(-1) > 1:
        raise ValueError(f"the shape {shape} depends on the batch size in several axes")
    return graph.add("Reshape", [x, graph.numbers(lengths)], shape, x.dtype)


def reshape(graph, equation, inputs):
    """`reshape`."""
    if equation.params["dimensions"] is not None:
        raise ValueError("reshape with another order of dimensions has no counterpart")
    return reshaped(graph, _operand(graph, equation, inputs), _result(equation)[0])


def broadcast(graph, equation, inputs):
    """`broadcast_in_dim`: axes of length 1 are added, and repeated by who reads them."""
    (x, *_), shape = inputs, [1] * len(equation.params["shape"])
    for axis, length in zip(equation.params["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = length
    return reshaped(graph, x, tuple(shape))


def squeeze(graph, equation, inputs):
    """`squeeze`, `expand_dims`: axes of length 1 go, or come."""
    return reshaped(graph, _operand(graph, equation, inputs), _result(equation)[0])


def transpose(graph, equation, inputs):
    """`transpose`; what is repeated along an axis stays so."""
    return transposed(graph, inputs[0], equation.params["permutation"])


def transposed(graph, x, order):
    """Returns a value with its axes in another order.

    Args:
      graph: a `Graph`.
      x: a value.
      order: of the axes.
    """
    order = tuple(int(axis) for axis in order)
    if order == tuple(range(len(order))):
        return x
    if isinstance(x, Constant):
        return Constant(x.array.transpose(order), x.name)
    shape = [x.shape[axis] for axis in order]
    return graph.add("Transpose", [x], shape, x.dtype, perm=order)


def slice_(graph, equation, inputs):
    """`slice`: every so many numbers between two bounds, of some axes."""
    x, params = _operand(graph, equation, inputs), equation.params
    starts, ends = params["start_indices"], params["limit_indices"]
    steps = params["strides"] or (1,) * len(starts)
    cut = [
        axis
        for axis, length in enumerate(x.shape)
        if not (starts[axis] == 0 and ends[axis] == length and steps[axis] == 1)
    ]
    if not cut:
        return x
    bounds = [graph.numbers([int(which[axis]) for axis in cut]) for which in (starts, ends)]
    numbers = [graph.numbers(cut), graph.numbers([int(steps[axis]) for axis in cut])]
    return graph.add("Slice", [x, *bounds, *numbers], *_result(equation))


def gather(graph, equation, inputs):
    """`gather` along one axis, of places that are known: some by number, or a run of them."""
    x, places = _operand(graph, equation, inputs), inputs[1]
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    axes = tuple(numbers.start_index_map)
    cut = [axis for axis, size in enumerate(sizes) if axis not in axes and size != x.shape[axis]]
    if not isinstance(places, Constant) or len(axes) != 1 or cut or numbers.operand_batching_dims:
        raise ValueError("gather of places that are computed, or in several axes, is not known")
    (axis,) = axes
    indices = places.array[..., 0].astype(np.int64)
    if (indices < 0).any() or (indices + sizes[axis] > x.shape[axis]).any():
        raise ValueError(f"gather of {sizes[axis]} at {indices.tolist()} of {x.shape[axis]}")
    if not numbers.collapsed_slice_dims and not indices.ndim:
        return _run(graph, x, axis, int(indices), int(sizes[axis]))
    behind = tuple(a if a < axis else a + indices.ndim for a in range(len(x.shape) - 1))
    if tuple(numbers.collapsed_slice_dims) != axes or tuple(numbers.offset_dims) != behind:
        raise ValueError(f"gather with {numbers} is not known")
    return graph.add("Gather", [x, Constant(indices)], *_result(equation), axis=axis)


def _run(graph, x, axis, start, length):
    shape = [*x.shape[:axis], length, *x.shape[axis + 1 :]]
    bounds = [graph.numbers([n]) for n in (start, start + length, axis)]
    return graph.add("Slice", [x, *bounds], shape, x.dtype)


def concatenate(graph, equation, inputs):
    """`concatenate`: values one behind the other along an axis."""
    parts = [_operand(graph, equation, inputs, n) for n in range(len(inputs))]
    return graph.add("Concat", parts, *_result(equation), axis=equation.params["dimension"])


def stack(graph, equation, inputs):
    """`stack`: values beside each other along a new axis."""
    axis, (shape, dtype) = equation.params["axis"], _result(equation)
    one = (*shape[:axis], 1, *shape[axis + 1 :])
    parts = [reshaped(graph, _operand(graph, equation, inputs, n), one) for n in range(len(inputs))]
    return graph.add("Concat", parts, shape, dtype, axis=axis)


def pad(graph, equation, inputs):
    """`pad`: a border of one number around an image."""
    x, config = _operand(graph, equation, inputs), equation.params["padding_config"]
    if any(inside for _, _, inside in config):
        raise ValueError(f"pad={config} between numbers has no counterpart")
    lengths = [int(low) for low, _, _ in config] + [int(high) for _, high, _ in config]
    return graph.add("Pad", [x, graph.numbers(lengths), inputs[1]], *_result(equation))


def reduced(operator):
    """Returns the translation of a reduction over axes.

    Args:
      operator: of ONNX.
    """

    def translate(graph, equation, inputs):
        x, axes = _operand(graph, equation, inputs), equation.params["axes"]
        if not axes:  # for ONNX these would be all
            return x
        return graph.add(operator, [x, graph.numbers(axes)], *_result(equation), keepdims=0)

    return translate


OPERATIONS = {
    **{"reshape": reshape, "broadcast_in_dim": broadcast, "squeeze": squeeze},
    **{"expand_dims": squeeze, "transpose": transpose, "slice": slice_, "gather": gather},
    **{"concatenate": concatenate, "stack": stack, "pad": pad},
    **{"reduce_sum": reduced("ReduceSum"), "reduce_max": reduced("ReduceMax")},
    **{"reduce_min": reduced("ReduceMin"), "reduce_prod": reduced("ReduceProd")},
}
