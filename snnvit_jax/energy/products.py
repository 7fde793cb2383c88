"""Whether the operation counts miss anything: every product that JAX computes, against the layers.

A layer that is not observed (a new type, an einsum written out in a model) would silently cost
nothing. So the program of the model is searched for the primitives that multiply and add, and for
products of two signals (`elementwise`); each must belong to an observed layer.
"""

import collections
import dataclasses
import math

from snnvit_jax.energy.nested import inner_programs

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


def check_all_counted(found, shapes):
    """Raises ValueError if a program computes other products than its counted layers do.

    Args:
      found: every `Product` of the model for one example, sums and element by element.
      shapes: {layer name: LayerShape}.
    """
    expected = collections.Counter()
    for shape in shapes.values():
        for primitive in shape.primitives:  # none of what is computed element by element
            macs = shape.macs * shape.time_steps // len(shape.primitives)
            expected[primitive, macs] += 1
    unexpected = []
    for product in found:
        key = product.primitive, product.macs
        expected[key] -= 1
        if expected[key] < 0:
            unexpected.append(f"{product.primitive} of {product.macs} MAC in {product.place!r}")
    missing = [f"{name} of {macs} MAC" for (name, macs), n in expected.items() if n > 0]
    if unexpected or missing:
        raise ValueError(
            "the operation counts do not cover this model: "
            f"computed but not counted: {unexpected}; counted but not computed: {missing}. "
            "Compute every product, also one of two signals element by element (layers.Gate), in a "
            "layer of energy.operations.OPERATIONS, or add its type with register_operation"
        )


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
