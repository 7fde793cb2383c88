"""Arithmetic and memory of a traced program, whatever compiles it."""

import jax
from jax.interpreters import partial_eval

from snnvit_jax.xla.programs import products


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
    needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return 2 * sum(product.macs for product in products(needed))


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
