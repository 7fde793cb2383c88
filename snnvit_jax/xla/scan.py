"""`jax.lax.scan` over time, as compilers take it best."""

import jax
import jax.numpy as jnp

# So many steps are written out: XLA then compiles a forward pass into one fusion, which reads the
# current once and keeps the membrane in registers. More would only take longer to compile.
UNROLL = 16


def scan_steps(step, initial, xs, axis=0):
    """Returns what `jax.lax.scan` returns of a step over an axis, its steps written out up to 16.

    Args:
      step: (carry, x) -> (carry, y), a pytree of arrays for each y; a carry is one array.
      initial: the carry before the first step.
      xs: an array with at least one step on `axis`.
      axis: of time, >= 0; also that of each y.

    Returns:
      (last carry, ys).
    """
    unroll = min(xs.shape[axis], UNROLL)
    last, ys = jax.lax.scan(step, initial, _first(xs, axis), unroll=unroll)
    return last, jax.tree.map(lambda y: jnp.moveaxis(y, 0, axis), ys)


def _first(xs, axis):
    """Returns xs with an axis in front.

    Put together of slices where the steps are written out, since a compiler sees through those; a
    transposition of many steps it may write to memory.
    """
    if axis == 0 or xs.shape[axis] > UNROLL:
        return jnp.moveaxis(xs, axis, 0)
    slices = jax.lax.split(xs, (1,) * xs.shape[axis], axis)
    return jnp.stack([jnp.squeeze(x, axis) for x in slices])
