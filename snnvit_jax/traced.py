"""Arithmetic and memory of a traced program, whatever compiles it."""

import math

import jax
from jax.interpreters import partial_eval


def traced_flops(traced):
    """Returns the floating-point operations of a program's convolutions and matrix products.

    A multiply-accumulate is two operations; taps on the padding count. What the result does not
    depend on is left out, so that of a product computed again for the backward pass only its
    gradients count. (The usual convention of model FLOPs utilisation: Chowdhery et al., "PaLM",
    arXiv 2204.02311, appendix B.)

    Args:
      traced: from `jax.jit(function).trace(...)`; shapes are enough, nothing is compiled.
    """
    jaxpr = traced.jaxpr.jaxpr
    return _flops(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def kept_bytes(function, argument, *others):
    """Returns the bytes that a function's forward pass keeps for its backward pass.

    Arguments that the backward pass needs are among them.

    Args:
      function: of the arguments, differentiable; returns (value, whatever else).
      argument: what is differentiated by, a pytree of arrays or shapes.
      *others: further arguments.
    """

    def backward(argument, *others):
        return jax.vjp(lambda x: function(x, *others), argument, has_aux=True)[1]

    return tree_bytes(jax.eval_shape(backward, argument, *others))


def tree_bytes(tree):
    """Returns the bytes of all arrays of a pytree.

    Args:
      tree: of arrays or shapes.
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _flops(jaxpr):
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            total += _dot_flops(equation)
        elif equation.primitive.name == "conv_general_dilated":
            total += _conv_flops(equation)
        repeats = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += repeats * sum(_flops(inner) for inner in _inner(equation))
    return total


def _inner(equation):
    for value in equation.params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            inner = getattr(one, "jaxpr", one)
            if hasattr(inner, "eqns"):
                yield inner


def _dot_flops(equation):
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(shape[i] for i in contracted)


def _conv_flops(equation):
    """Each output takes the taps of one kernel, those on the padding included."""
    kernel = equation.invars[1].aval.shape
    spec = equation.params["dimension_numbers"].rhs_spec  # (outputs, inputs, *space)
    return 2 * equation.outvars[0].aval.size * math.prod(kernel[i] for i in spec[1:])
