"""Primitives that act on each number by itself; operands are broadcast as they are used."""

import numpy as np
from onnx import helper

from snnvit_jax.deployment.onnx.values import Constant, common_shape

# primitive -> ONNX operator with the same arguments in the same order
SAME = {
    **{"add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "neg": "Neg"},
    **{"max": "Max", "min": "Min", "abs": "Abs", "sign": "Sign", "floor": "Floor", "ceil": "Ceil"},
    **{"exp": "Exp", "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid", "sqrt": "Sqrt"},
    **{"erf": "Erf", "pow": "Pow", "not": "Not", "and": "And", "or": "Or", "xor": "Xor"},
    **{"eq": "Equal", "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "lt": "Less"},
}
_ON_TRUTH = ("not", "and", "or", "xor")


def same(operator):
    """Returns the translation of a primitive that ONNX knows under another name.

    Args:
      operator: of ONNX.
    """

    def translate(graph, equation, inputs):
        shape = common_shape(*(x.shape for x in inputs))
        return graph.add(operator, inputs, shape, equation.outvars[0].aval.dtype)

    return translate


def on_truth(operator):
    """Returns the translation of a logical primitive, which on whole numbers acts on their bits.

    Args:
      operator: of ONNX.
    """

    def translate(graph, equation, inputs):
        if any(x.dtype != bool for x in inputs):
            raise ValueError(f"{equation.primitive.name} of {inputs[0].dtype} has no counterpart")
        return same(operator)(graph, equation, inputs)

    return translate


def not_equal(graph, equation, inputs):
    """`ne`: ONNX has only its opposite."""
    equal = same("Equal")(graph, equation, inputs)
    return graph.add("Not", [equal], equal.shape, bool)


def integer_pow(graph, equation, inputs):
    """`integer_pow`: a number to a power that is known."""
    (x,) = inputs
    exponent = np.asarray(equation.params["y"], x.dtype)
    return graph.add("Pow", [x, Constant(exponent)], x.shape, x.dtype)


def square(graph, equation, inputs):
    """`square`: a number times itself."""
    return same("Mul")(graph, equation, [*inputs, *inputs])


def rsqrt(graph, equation, inputs):
    """`rsqrt`: the reciprocal of a root."""
    root = same("Sqrt")(graph, equation, inputs)
    return graph.add("Reciprocal", [root], root.shape, root.dtype)


def select_n(graph, equation, inputs):
    """`select_n`: of two cases, chosen by a truth value."""
    which, *cases = inputs
    if len(cases) != 2 or which.dtype != bool:
        raise ValueError(f"select_n of {len(cases)} cases by {which.dtype} has no counterpart")
    shape = common_shape(*(x.shape for x in inputs))
    return graph.add("Where", [which, cases[1], cases[0]], shape, cases[0].dtype)


def convert(graph, equation, inputs):
    """`convert_element_type`: another kind of number."""
    (x,), dtype = inputs, np.dtype(equation.params["new_dtype"])
    if x.dtype == dtype:
        return x
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    return graph.add("Cast", [x], x.shape, dtype, to=kind)


def clamp(graph, equation, inputs):
    """`clamp`: between two bounds."""
    low, x, high = inputs
    above = same("Max")(graph, equation, [x, low])
    return same("Min")(graph, equation, [above, high])


OPERATIONS = {
    **{name: same(operator) for name, operator in SAME.items() if name not in _ON_TRUTH},
    **{name: on_truth(SAME[name]) for name in _ON_TRUTH},
    **{"ne": not_equal, "integer_pow": integer_pow, "square": square, "rsqrt": rsqrt},
    **{"select_n": select_n, "convert_element_type": convert, "clamp": clamp},
}
