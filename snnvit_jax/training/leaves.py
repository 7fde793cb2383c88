"""One number of each of many arrays, in few kernels: most arrays of a model are short vectors."""

import jax.numpy as jnp


def per_leaf(values, reduce, leaves):
    """Returns reduce(values(leaf)) of each array, as a list of scalars.

    The last axis is reduced first; what is left of each, as a vector, together with those of its
    length.

    Args:
      values: function of an array, element by element, to one type for all.
      reduce: function of (array, axis) that may be taken in stages, such as `jnp.sum`.
      leaves: arrays of any shapes.
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
