"""What a traced program computes: the programs within it, and the products among its primitives."""

import dataclasses
import math

PRODUCTS = ("dot_general", "conv_general_dilated", "ragged_dot_general")


@dataclasses.dataclass(frozen=True)
class Product:
    """A primitive that multiplies and adds.

    Attributes:
      primitive: its name.
      macs: multiply-accumulates of computing it once, or values of one element by element.
      place: names of the modules around it.
    """

    primitive: str
    macs: int
    place: str


def inner_programs(params):
    """Yields the programs among an equation's parameters: of loops, choices and functions.

    Of those that compute the same, as each backend takes it best, the last: that of all others.

    Args:
      params: of a jaxpr's equation.
    """
    if params.get("branches_platforms"):
        params = {"branches": params["branches"][-1:]}
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            inner = getattr(item, "jaxpr", item)
            if hasattr(inner, "eqns"):
                yield inner


def products(jaxpr):
    """Lists the products of a program, those of nested programs as often as they are computed.

    Args:
      jaxpr: from `jax.make_jaxpr`; the body of a loop without a fixed length counts once.

    Returns:
      A list of `Product`.
    """
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in PRODUCTS:
            place = str(equation.source_info.name_stack)
            found.append(Product(equation.primitive.name, _macs(equation), place))
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        for inner in inner_programs(equation.params):
            found += products(inner) * times
    return found


def _macs(equation):
    left, right = (x.aval.shape for x in equation.invars[:2])
    outputs = math.prod(equation.outvars[0].aval.shape)
    if equation.primitive.name == "conv_general_dilated":
        out_features = equation.params["dimension_numbers"].rhs_spec[0]
        return outputs * math.prod(right) // right[out_features]
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return outputs * math.prod(left[axis] for axis in contracted)
    return outputs * left[-1]
