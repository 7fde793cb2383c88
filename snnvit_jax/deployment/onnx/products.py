"""Primitives that multiply and add up: convolutions, matrix products, pooling by windows."""

import string

from snnvit_jax.deployment.onnx.shapes import transposed


def convolution(graph, equation, inputs):
    """`conv_general_dilated`: ONNX has the channels first, in images and in kernels."""
    params = equation.params
    if params["batch_group_count"] != 1 or set(params["lhs_dilation"]) != {1}:
        raise ValueError("a convolution between whose pixels lies something has no counterpart")
    images, kernel = (
        graph.whole(x, variable.aval.shape)
        for x, variable in zip(inputs, equation.invars, strict=True)
    )
    specs = params["dimension_numbers"]
    images = transposed(graph, images, specs.lhs_spec)
    kernel = transposed(graph, kernel, specs.rhs_spec)
    out = equation.outvars[0].aval
    sides = params["padding"]
    result = graph.add(
        "Conv",
        [images, kernel],
        [out.shape[axis] for axis in specs.out_spec],
        out.dtype,
        strides=[int(n) for n in params["window_strides"]],
        dilations=[int(n) for n in params["rhs_dilation"]],
        pads=[int(low) for low, _ in sides] + [int(high) for _, high in sides],
        group=int(params["feature_group_count"]),
    )
    return transposed(graph, result, _inverse(specs.out_spec))


def dot_general(graph, equation, inputs):
    """`dot_general`: a matrix product where it is a plain one, else a sum over named axes."""
    (contracted, batched), out = equation.params["dimension_numbers"], equation.outvars[0].aval
    a, b = (
        graph.whole(x, variable.aval.shape)
        for x, variable in zip(inputs, equation.invars, strict=True)
    )
    ranks = len(a.shape), len(b.shape)
    if not batched[0] and ranks[1] == 2 and contracted == ((ranks[0] - 1,), (0,)):
        return graph.add("MatMul", [a, b], out.shape, out.dtype)
    formula = _formula(ranks, contracted, batched)
    return graph.add("Einsum", [a, b], out.shape, out.dtype, equation=formula)


def _formula(ranks, contracted, batched):
    """The sum in Einstein's notation: batch axes first, then what is left of either operand."""
    letters = iter(string.ascii_letters)
    names = [[None] * rank for rank in ranks]
    for pairs in (batched, contracted):
        for left, right in zip(*pairs, strict=True):
            names[0][left] = names[1][right] = next(letters)
    names = [[letter or next(letters) for letter in side] for side in names]
    shared = {names[0][axis] for axis in (*batched[0], *contracted[0])}
    first = [names[0][axis] for axis in batched[0]]
    free = [letter for side in names for letter in side if letter not in shared]
    return f"{''.join(names[0])},{''.join(names[1])}->{''.join(first + free)}"


def _inverse(order):
    return [order.index(axis) for axis in range(len(order))]


OPERATIONS = {"conv_general_dilated": convolution, "dot_general": dot_general}
