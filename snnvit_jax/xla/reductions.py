"""Sums over many values, in a type that holds them."""

import functools

import jax
import jax.numpy as jnp


def spread(parameter, values):
    """Returns a parameter broadcast over values, in their type.

    Its gradient is a sum over all of them, which is taken in at least float32: a bfloat16 sum stops
    growing after a few hundred terms.

    Args:
      parameter: array that broadcasts to the shape of `values`.
      values: floating-point array; only its shape and type matter.
    """
    return _spread(parameter, jnp.shape(values), jnp.result_type(values))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _spread(parameter, shape, dtype):
    return jnp.broadcast_to(parameter.astype(dtype), shape)


def _forward(parameter, shape, dtype):
    # An array without elements, because a shape is no residual.
    return _spread(parameter, shape, dtype), jnp.zeros((0, *parameter.shape), parameter.dtype)


def _backward(shape, dtype, residual, gradient):
    own = (1,) * (len(shape) - residual.ndim + 1) + residual.shape[1:]
    axes = tuple(i for i, size in enumerate(own) if size == 1 != shape[i])
    wide = jnp.promote_types(dtype, jnp.float32)
    total = jnp.sum(gradient, axes, dtype=wide)
    return (total.reshape(residual.shape[1:]).astype(residual.dtype),)


_spread.defvjp(_forward, _backward)
