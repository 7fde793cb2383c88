"""Stochastic depth."""

import jax


def drop_path(key, branch, probability):
    """Leaves out a residual branch for some examples, at all of their time steps.

    What stays is scaled by 1 / (1 - probability), so that the mean is unchanged (Huang et al.,
    "Deep Networks with Stochastic Depth", ECCV 2016).

    Args:
      key: typed PRNG key.
      branch: `Signal` [B, T, ...].
      probability: of leaving out an example's branch, in [0, 1).
    """
    shape = (branch.shape[0],) + (1,) * (len(branch.shape) - 1)
    kept = jax.random.bernoulli(key, 1 - probability, shape)
    return branch.then(_times, kept / (1 - probability))


def _times(values, factor):
    return (values * factor).astype(values.dtype)
