"""Normalisation folded into the linear map before it."""

import numpy as np

from snnvit_jax.layers.layers import EPSILON


def fold(kernel, bias, scale, shift, mean, variance):
    """Returns the linear map that also normalises: normalize(x W + b) = x W' + b'.

        W' = W f,  b' = (b - mean) f + shift,  f = scale / sqrt(variance + 1e-5)

    The factor f is rounded as the model rounds it, so that both have the same; all else is float64.

    Args:
      kernel: W [..., C].
      bias: b [C], or None.
      scale: [C].
      shift: [C].
      mean: [C].
      variance: [C].

    Returns:
      (W' [..., C], b' [C]), float64.
    """
    factor = scale * (1 / np.sqrt(variance + np.asarray(EPSILON, variance.dtype)))
    factor = np.asarray(factor, np.float64)
    offset = (0.0 if bias is None else np.float64(bias)) - np.float64(mean)
    return np.asarray(kernel, np.float64) * factor, offset * factor + np.float64(shift)


def fold_layer(variables, linear, norm):
    """Folds one layer of a model.

    Args:
      variables: {(collection, *path, name): array}, flat.
      linear: module name of the linear map, "a/b".
      norm: module name of the normalisation after it.

    Returns:
      (kernel [..., C], bias [C]), float64.

    Raises:
      ValueError: naming the layer, if a folded weight is not finite.
    """
    map_path, norm_path = ("params", *linear.split("/")), tuple(norm.split("/"))
    with np.errstate(all="ignore"):  # what goes wrong here is not finite
        kernel, bias = fold(
            variables[*map_path, "kernel"],
            variables.get((*map_path, "bias")),
            variables["params", *norm_path, "scale"],
            variables["params", *norm_path, "bias"],
            variables["batch_stats", *norm_path, "mean"],
            variables["batch_stats", *norm_path, "var"],
        )
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
        raise ValueError(
            f"folding {norm!r} into {linear!r} gives weights that are not finite: the model holds "
            "a NaN, an infinity or a negative variance"
        )
    return kernel, bias
