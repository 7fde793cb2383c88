"""Products of narrow arrays, summed in float32."""

import functools

import jax
import jax.numpy as jnp


def wide_einsum(equation, a, b, exact=False):
    """Returns an einsum of two arrays, summed and returned in at least float32.

    Matrix units take narrow operands as they are. XLA's compiler for CPUs cannot: there they are
    widened first.

    Args:
      equation: as in `jnp.einsum`, with its result.
      a: floating-point array.
      b: floating-point array.
      exact: whether operands are kept from being rounded, as matrix units do with float32.
    """
    wide = jnp.promote_types(jnp.promote_types(a.dtype, b.dtype), jnp.float32)
    if exact or a.dtype != b.dtype or a.dtype == wide:
        precision = jax.lax.Precision.HIGHEST if exact else None
        return jnp.einsum(equation, a.astype(wide), b.astype(wide), precision=precision)
    as_they_are = functools.partial(jnp.einsum, equation, preferred_element_type=wide)

    def widened(a, b):
        return jnp.einsum(equation, a.astype(wide), b.astype(wide))

    return jax.lax.platform_dependent(a, b, cpu=widened, default=as_they_are)
