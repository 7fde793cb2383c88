"""Normalisations and scales folded into the linear map before them."""

import numpy as np

from snnvit_jax.layers.normalisation import EPSILON


def as_factor(scale, variance):
    """Returns scale / sqrt(variance + 1e-5), rounded as the model rounds it, as float64.

    Args:
      scale: [C].
      variance: [C].
    """
    scale, variance = np.asarray(scale), np.asarray(variance)
    with np.errstate(all="ignore"):  # what goes wrong here is not finite, and refused later
        factor = scale * (1 / np.sqrt(variance + np.asarray(EPSILON, variance.dtype)))
    return np.asarray(factor, np.float64)


def node_factor(node):
    """Returns by what a normalisation or scale multiplies each channel, float64.

    Args:
      node: a `signals.Node` of operation "norm" or "scale".
    """
    if node.operation == "norm":
        return as_factor(node.about["scale"], node.about["var"])
    return np.asarray(node.about["factor"], np.float64)


def fold_kernels(tracer):
    """Returns the kernels of all linear maps with what follows them folded in.

        norm(x W + b) = x (W f) + constant,  f = scale / sqrt(variance + 1e-5)

    A normalisation or scale is folded if nobody else reads what is before it. The shift is part of
    the constant that a neuron reads (`planning.effects`).

    Args:
      tracer: from `planning.trace`.

    Returns:
      ({linear map: kernel, float64}, names of the normalisations and scales that are folded).

    Raises:
      ValueError: naming the layer, if a folded weight is not finite.
    """
    nodes, kernels, folded, map_of = tracer.nodes, {}, set(), {}
    for number, node in enumerate(nodes):
        if node.operation == "linear":
            kernels[node.path], map_of[number] = np.float64(node.about["kernel"]), node.path
        elif node.operation in ("norm", "scale") and node.path:
            (before,) = node.inputs
            if before in map_of and len(tracer.consumers(before)) == 1:
                map_of[number] = map_of[before]
                kernels[map_of[before]] = kernels[map_of[before]] * node_factor(node)
                folded.add(node.path)
                _check_finite(kernels[map_of[before]], node.path, map_of[before])
    return kernels, folded


def _check_finite(kernel, norm, linear):
    if not np.isfinite(kernel).all():
        raise ValueError(
            f"folding {norm!r} into {linear!r} gives weights that are not finite: the model holds "
            "a NaN, an infinity or a negative variance"
        )
