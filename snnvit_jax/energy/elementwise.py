"""Products of two signals, element by element: found in the program of a model.

A spike that gates another value is an operation like any other, but it looks like `q * x`. So it is
followed through the program what depends on the images, and every multiplication of two such values
is listed. Weights, masks and constants depend on no image: a normalisation is none.
"""

import math

from jax.extend import core

from snnvit_jax.xla.programs import Product, inner_programs

# primitive -> how many of its operands must depend on the images for it to be such a product
_PRIMITIVES = {
    **{"mul": 2, "div": 2, "rem": 2, "pow": 2, "atan2": 2, "integer_pow": 1, "square": 1},
    # Of spikes, the smaller of two is their product. The larger is free: so is pooling.
    **{"min": 2, "and": 2, "or": 2, "xor": 2, "reduce_min": 1, "reduce_and": 1, "reduce_or": 1},
    **{"reduce_prod": 1, "cumprod": 1, "cummin": 1, "scatter_mul": 2, "reduce_window_min": 1},
    **{"clamp": 2, "reduce_xor": 1, "shift_left": 2},
    # One spike is larger than another where it fires and the other does not.
    **dict.fromkeys(("gt", "ge", "lt", "le", "eq", "ne"), 2),
    # Sums of products, or anything at all, inside of one primitive.
    **dict.fromkeys(("fft", "triangular_solve", "pure_callback", "io_callback", "ffi_call"), 1),
}
# A value is let through, or taken, where a signal says so: the first operand.
_CHOICES = ("select_n", "cond", "gather", "dynamic_slice")
# Their programs work on any of what they are given.
_REPEATED = ("scan", "while", "reduce", "reduce_window")


def elementwise_products(jaxpr, signals):
    """Lists the products of two signals in a program.

    Args:
      jaxpr: from `jax.make_jaxpr`.
      signals: [arguments of the program] whether each depends on the images.

    Returns:
      A list of `Product`; its `macs` are the number of values.
    """
    found = []
    _follow(jaxpr, signals, found)
    return found


def _follow(jaxpr, signals, found, place=""):
    """Returns which results depend on the images; adds the products to `found`."""
    known = {v for v, on in zip(jaxpr.invars, signals, strict=True) if on}
    for equation in jaxpr.eqns:
        operands = [not isinstance(v, core.Literal) and v in known for v in equation.invars]
        here = "/".join(filter(None, (place, str(equation.source_info.name_stack))))
        if _multiplies(equation, operands):
            size = math.prod(equation.outvars[0].aval.shape)
            found.append(Product(equation.primitive.name, size, here))
        results = _through(equation, operands, found, here)
        known |= {v for v, on in zip(equation.outvars, results, strict=True) if on}
    return [not isinstance(v, core.Literal) and v in known for v in jaxpr.outvars]


def _multiplies(equation, operands):
    name = equation.primitive.name
    if name in _CHOICES:
        return operands[0] and any(operands[1:])
    if name == "integer_pow" and equation.params["y"] in (0, 1):
        return False
    return sum(operands) >= _PRIMITIVES.get(name, math.inf)


def _through(equation, operands, found, place):
    """Which results of an equation depend on the images."""
    programs = list(inner_programs(equation.params))
    if not programs:
        return [any(operands)] * len(equation.outvars)
    results = [False] * len(equation.outvars)
    for inner in programs:
        on = operands[len(operands) - len(inner.invars) :]  # what a choice or a loop is decided by
        if len(on) != len(inner.invars) or equation.primitive.name in _REPEATED:
            on = [any(operands)] * len(inner.invars)
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        once = []
        out = _follow(inner, on, once, place)
        found += once * times
        if len(out) != len(results):
            out = [any(out)] * len(results)
        results = [a or b for a, b in zip(results, out, strict=True)]
    return results
