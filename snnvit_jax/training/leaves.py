"""One number of each of many arrays, in few kernels: most arrays of a model are short vectors."""

import jax.numpy as jnp


def per_leaf(values, reduce, leaves, together):
    """Returns reduce(values(leaf)) of each array, as a list of scalars.

    Args:
      values: function of an array, element by element, to one type for all.
      reduce: function of (array, axis) that may be taken in stages, such as `jnp.sum`.
      leaves: arrays of any shapes.
      together: whether the last axis of each is reduced first, and what is left, as a vector,
        together with those of its length: fewer kernels. Where arrays are divided among devices,
        that would gather them.
    """
    if not together:
        return [reduce(values(leaf), None) for leaf in leaves]
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
