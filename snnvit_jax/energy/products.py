"""Whether the operation counts miss anything: every product that JAX computes, against the layers.

A layer that is not observed (a new type, an einsum written out in a model) would silently cost
nothing. So the program of the model is searched for the primitives that multiply and add, and for
products of two signals (`elementwise`); each must belong to an observed layer.
"""

import collections


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
            "layer of energy.layer_operations.OPERATIONS, or add its type with "
            "energy.operations.register_operation"
        )
