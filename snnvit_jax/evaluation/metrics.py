"""Metrics as (sum, count) pairs, exact however the examples were split into batches.

A metric dictionary maps a name to (sum, count); count may weigh several values at once (a sum of
shape [T] with a scalar count is T means).
"""

import jax


def merge(*dictionaries):
    """Returns the metrics of all examples together.

    Args:
      *dictionaries: metric dictionaries with the same names, at least one.
    """
    return jax.tree.map(lambda *leaves: sum(leaves), *dictionaries)


def means(metrics):
    """Returns {name: sum / count}.

    Args:
      metrics: a metric dictionary.

    Raises:
      ValueError: if a metric counts nothing, naming it.
    """
    empty = [name for name, (_, count) in metrics.items() if not count > 0]
    if empty:
        raise ValueError(f"no examples were counted for {empty}")
    return {name: total / count for name, (total, count) in metrics.items()}
