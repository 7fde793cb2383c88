"""Training steps whose numbers are not finite: noticed in the step, named by layer.

Spikes hide what goes wrong: a membrane potential that is not a number never reaches the threshold,
so the loss may look sound. The running statistics of the normalisations show it.
"""

import jax
import jax.numpy as jnp

from snnvit_jax.training.leaves import per_leaf

ON_NONFINITE = ("stop", "skip")


def leaf_flags(squares, batch_stats, together=False):
    """Returns which arrays hold a number that is not finite, bool [P], as `describe` reads it.

    A gradient whose square is not finite counts too: no second moment of an optimiser holds it.

    Args:
      squares: sum of the squares of each parameter's gradient, P1 scalars, as a list.
      batch_stats: new running statistics, a pytree of P - P1 arrays.
      together: see `leaves.per_leaf`.
    """
    finite = [jnp.isfinite(square) for square in squares]
    finite += per_leaf(jnp.isfinite, jnp.all, jax.tree.leaves(batch_stats), together)
    return ~jnp.stack(finite)


def any_flag(flags):
    """Returns whether any of the flags [P] is set.

    Args:
      flags: bool [P] from `leaf_flags`.
    """
    # A product, because the compiler would copy the reduction of `any`, with all that leads to it,
    # into each of the hundreds of small programs that select by it: twice the time to compile.
    ones = flags.astype(jnp.float32)
    return jnp.vdot(ones, ones) > 0


def describe(flags, state, layers):
    """Says in a few words where a step's numbers were not finite.

    Args:
      flags: bool [P] from `leaf_flags`.
      state: a `TrainState`, for the names of its arrays.
      layers: names of all layers, spiking or not, in the order of the computation.

    Returns:
      The first layer whose activations are not finite; or, if they all are, the layer at which the
      gradient, on its way back from the loss, stopped being finite.
    """
    paths, _ = jax.tree_util.tree_flatten_with_path((state.params, state.batch_stats))
    found = {0: [], 1: []}  # gradients, statistics
    for ((which, *path), _), flag in zip(paths, flags, strict=True):
        if flag:
            layer = "/".join(key.key for key in path[:-1])
            found[which.idx].append((_position(layer, layers), layer))
    if found[1]:
        return f"the activations of {min(found[1])[1]} and whatever follows from them"
    return f"the gradient from {max(found[0])[1]} backwards"


def _position(layer, layers):
    """Where a layer comes, or the first of those that it is made of; a layer not known is last."""
    inside = (i for i, name in enumerate(layers) if f"{name}/".startswith(f"{layer}/"))
    return next(inside, len(layers))
