"""Normalisations and scales folded into the linear map before them."""

import functools

import jax
import jax.numpy as jnp
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
    """Returns by what a normalisation or scale multiplies a signal, float64.

    Args:
      node: a `signals.Node` of operation "norm" or "scale".

    Returns:
      [C] of a normalisation, and what broadcasts to the values of one step of a scale.
    """
    if node.operation == "norm":
        return as_factor(node.details["scale"], node.details["var"])
    if "factor" in node.details:
        return np.asarray(node.details["factor"], np.float64)
    numbers = [np.asarray(number) for number in node.details["numbers"]]
    return np.float64(computed_now(node.details["function"], *numbers))


def computed_now(function, *arrays):
    """Returns function(*arrays) as a NumPy array, also while JAX is tracing; float64 stays float64.

    Args:
      function: of JAX arrays.
      *arrays: NumPy arrays.
    """
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        return np.asarray(function(*map(jnp.asarray, arrays)))


def fold_kernels(tracer):
    """Returns the kernels of all linear maps with what follows them folded in.

        norm(x W + b) = x (W f) + constant,  f = scale / sqrt(variance + 1e-5)

    A normalisation or scale is folded if nobody else reads what is before it, a scale also if the
    others read other channels. The shift is part of the constant that a neuron reads
    (`planning.effects`).

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
            kernels[node.path], map_of[number] = np.float64(node.details["kernel"]), node.path
        elif node.operation in ("norm", "scale") and node.path:
            (before,) = node.inputs
            first, factor = before, None
            if before in map_of and len(tracer.consumers(before)) == 1:
                map_of[number], factor = map_of[before], _of_channels(node)
            if factor is None and node.operation == "scale":
                map_of.pop(number, None)
                first, factor = _before_maps(tracer, number)
            if factor is not None and first in map_of:
                kernels[map_of[first]] = kernels[map_of[first]] * factor
                folded.add(node.path)
                _check_finite(kernels[map_of[first]], node.path, map_of[first])
    return kernels, folded


def _of_channels(node):
    """What a node multiplies each channel by, [C]; None if it is not the same at all places."""
    factor = node_factor(node)
    if factor.ndim <= 1:
        return factor
    flat = np.broadcast_to(factor, node.shape).reshape(-1, node.shape[-1])
    return flat[0] if (flat == flat[0]).all() else None


def _before_maps(tracer, number):
    """(Node before the maps that a scale reads through, its channels' factor there or None)."""
    chain, first = [], tracer.nodes[number].inputs[0]
    while tracer.nodes[first].operation == "map" and not tracer.nodes[first].path:
        chain.insert(0, first)
        (first,) = tracer.nodes[first].inputs
    shape = tracer.nodes[first].shape
    factor = node_factor(tracer.nodes[number])
    found = _pulled_back(_composed(tracer, chain), factor, tracer.nodes[number].shape, shape)
    if found is None or not _read_by_it_alone(tracer, number, first, chain, found != 1):
        return first, None
    return first, found


def _pulled_back(function, factor, shape, shape_before):
    """The factors g [C] for which function(x g) = function(x) factor; None if there are none."""
    channels = np.broadcast_to(np.arange(shape_before[-1]), shape_before)
    channels, factor = function(channels), np.broadcast_to(factor, shape)
    if (channels != np.round(channels)).any():
        return None
    found = np.ones(shape_before[-1])
    found[channels.astype(int).ravel()] = factor.ravel()
    x = np.random.default_rng(61).normal(size=shape_before)
    return found if np.allclose(function(x * found), function(x) * factor, atol=1e-9) else None


def _read_by_it_alone(tracer, number, first, chain, channels):
    """Whether nothing but a scale depends on these channels of a node."""
    x = np.random.default_rng(62).normal(size=tracer.nodes[first].shape)
    changed = np.where(channels, x + 1, x)
    for last, reader in zip((first, *chain), (*chain, number), strict=True):
        before = _composed(tracer, chain[: chain.index(last) + 1 if last in chain else 0])
        for other in set(tracer.consumers(last)) - {reader}:
            node = tracer.nodes[other]
            if node.operation != "map":
                return False
            after = functools.partial(_evaluated, node.details["function"])
            if (after(before(x)) != after(before(changed))).any():
                return False
    return True


def _composed(tracer, chain):
    """The function of one step of one example that some maps after each other compute."""

    def apply(x):
        for number in chain:
            x = _evaluated(tracer.nodes[number].details["function"], x)
        return x

    return apply


def _evaluated(function, x):
    return computed_now(function, np.float64(x)[None, None])[0, 0]


def _check_finite(kernel, norm, linear):
    if not np.isfinite(kernel).all():
        raise ValueError(
            f"folding {norm!r} into {linear!r} gives weights that are not finite: the model holds "
            "a NaN, an infinity or a negative variance"
        )
