"""One number of each of many arrays, in few kernels: most arrays of a model are short vectors."""

import jax.numpy as jnp


def per_leaf(values, reduce, leaves):
    """Returns reduce(values(leaf)) of each array, as a list of scalars.

    Matrices are reduced to vectors first, and vectors of one length together.

    Args:
      values: function of an array, element by element.
      reduce: function of (array, axis), such as `jnp.sum`, that may be taken in stages.
      leaves: arrays.
    """
    vectors = [_as_vector(values(leaf), reduce) for leaf in leaves]
    members = {}
    for i, vector in enumerate(vectors):
        members.setdefault(len(vector), []).append(i)
    found = {}
    for group in members.values():
        reduced = reduce(jnp.stack([vectors[i] for i in group]), -1)
        found |= {i: reduced[place] for place, i in enumerate(group)}
    return [found[i] for i in range(len(vectors))]


def _as_vector(leaf, reduce):
    return jnp.reshape(leaf if leaf.ndim < 2 else reduce(leaf, -1), -1)
