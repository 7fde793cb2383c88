"""Rematerialisation: what a backward pass computes again in place of keeping it.

On a TPU or GPU a barrier says so to the compiler. XLA's compiler for CPUs drops barriers, finds the
second computation equal to the first, and keeps the results of the first; there the operands are
changed by a zero that it cannot know. Both give the same numbers.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from snnvit_jax.xla import kernels


def deferred(function, *operands):
    """Returns function(*operands), yet to be computed: a pytree that knows how.

    Args:
      function: pure, of arrays; it may not close over anything traced.
      *operands: pytrees of arrays; the first may be deferred itself.
    """
    return Partial(_OnValue(function), *operands)


@dataclasses.dataclass(frozen=True)
class _OnValue:
    function: Callable

    def __call__(self, first, *operands):
        return self.function(value(first), *operands)


def pointwise(function):
    """Marks a function for `deferred` as one of single values and of numbers per channel.

    Args:
      function: (values [..., C], *operands [C] or scalars) -> [..., C].
    """
    function.pointwise = True
    return function


def is_pointwise(deferred):
    """Returns whether a value is an array, or deferred and made of one by pointwise functions.

    Args:
      deferred: array, or what `deferred` returns.
    """
    while isinstance(deferred, Partial):
        function = getattr(deferred.func, "function", deferred.func)
        if not getattr(function, "pointwise", False):
            return False
        deferred = deferred.args[0]
    return True


def source(deferred):
    """Returns the array that a deferred value is made of.

    Args:
      deferred: array, or what `deferred` returns.
    """
    return source(deferred.args[0]) if isinstance(deferred, Partial) else deferred


def frozen(deferred, function):
    """Returns a deferred value without a gradient for the operands of its last function.

    Args:
      deferred: array, or what `deferred` returns.
      function: the one meant; the value of any other, or an array, is returned as it is.
    """
    if not (isinstance(deferred, Partial) and deferred.func == _OnValue(function)):
        return deferred
    first, *operands = deferred.args
    return Partial(deferred.func, first, *jax.lax.stop_gradient(operands))


def value(deferred):
    """Returns the array of a deferred value; an array itself.

    Args:
      deferred: array, or what `deferred` returns.
    """
    return deferred() if callable(deferred) else deferred


def materialise(deferred):
    """Returns a deferred value; for the backward pass, keeps only what it is made of.

    Args:
      deferred: function without arguments that is a pytree.
    """
    return rematerialise(value, deferred)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def rematerialise(function, *operands):
    """function(*operands); its gradient keeps the operands alone and computes the rest again.

    `jax.checkpoint` says the same, but has no effect on a CPU: the compiler drops the barrier that
    it writes, finds the second computation equal to the first, and keeps the results of the first.
    (Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.)

    Args:
      function: pure; it may not close over anything traced.
      *operands: pytrees of floating-point arrays.
    """
    return function(*operands)


def _rematerialise_forward(function, *operands):
    return function(*operands), operands


def _rematerialise_backward(function, operands, gradient):
    operands = jax.lax.platform_dependent(
        operands, gradient, cpu=_add_unknown_zero, default=_barrier
    )
    return jax.vjp(function, *operands)[1](gradient)


rematerialise.defvjp(_rematerialise_forward, _rematerialise_backward)


def _barrier(operands, gradient):
    return jax.lax.optimization_barrier((operands, gradient))[0]


def _add_unknown_zero(operands, gradient):
    """Adds a zero that the compiler cannot know, so that nothing looks as if computed before.

    It depends on the gradient, so that nothing is computed again before that is there. The largest
    array of a `Partial` is left alone: that the others differ is enough.
    """
    zero = _unknown_zero(jax.tree.leaves(gradient)[0])

    def add(operand):
        largest = max(x.size for x in jax.tree.leaves(operand)) if callable(operand) else None
        return jax.tree.map(lambda x: x if x.size == largest else x + zero.astype(x.dtype), operand)

    return jax.tree.map(add, operands, is_leaf=lambda x: isinstance(x, Partial))


def write_out(x):
    """Returns x; a program that differentiates it writes x and its gradient to memory on a CPU.

    XLA's CPU compiler computes again what several of its loops use. In a recurrence, that is
    everything since its start, so that the cost of T steps would grow with the square of T.

    Args:
      x: floating-point array.
    """
    return x if kernels.inside() else _write_out(x)


@jax.custom_vjp
def _write_out(x):
    return x


def _write_out_forward(x):
    one = 1 + _unknown_zero(x)
    return _written(x, one), one


def _write_out_backward(one, gradient):
    return (_written(gradient, one),)


_write_out.defvjp(_write_out_forward, _write_out_backward)


def _written(x, one):
    # The compiler takes a division for too expensive to be done twice.
    return jax.lax.platform_dependent(x, one, cpu=jnp.divide, default=lambda x, one: x)


def _unknown_zero(x):
    """Returns a zero that the compiler cannot know: the lesser of 0 and a magnitude."""
    return jnp.minimum(jnp.abs(x[(0,) * x.ndim]), 0) if x.size else jnp.zeros((), x.dtype)
