"""Linear maps that follow each other without a neuron between them, written as one.

Of a map of channels and a convolution, in either order, the product is a convolution. It reads
spikes where the second map read real values, so that all of it is accumulate-only; a convolution of
each channel by itself becomes one of all channels, though, which is more arithmetic for a machine
that multiplies. Networks are trained as such chains and run as one map (Ding et al., "RepVGG", CVPR
2021).
"""

import dataclasses

import numpy as np

from snnvit_jax.layers import Convolution, MatrixProduct
from snnvit_jax.signals.signal import OfImages


@dataclasses.dataclass(frozen=True)
class Merged:
    """Chains of linear maps, each written as its first map.

    Attributes:
      kernels: {linear map: kernel, float64} of all that are left.
      functions: {first map of a chain: (`Convolution` or `MatrixProduct` of all of it, shape of its
        kernel)}.
      away: names of the layers that are part of an earlier one.
    """

    kernels: dict[str, np.ndarray]
    functions: dict
    away: frozenset[str]


def unmerged(kernels):
    """Returns the `Merged` of maps that all stay what they are.

    Args:
      kernels: {linear map: kernel}.
    """
    return Merged(kernels, {}, frozenset())


def merge_chains(tracer, kernels, folded):
    """Returns the `Merged` of a model.

    A map is merged into the one before it if nobody else reads what is between them, there is
    nothing but folded normalisations, and one of the two is a map of channels. Constants are not
    concerned: they are those of the whole chain (`planning.effects`).

    Args:
      tracer: from `planning.trace`.
      kernels: {linear map: kernel, float64}, with what follows folded in.
      folded: names of the normalisations and scales that are.
    """
    nodes, functions, away = tracer.nodes, {}, set()
    maps, first_of, paths = {}, {}, {}  # by number: of each chain, of each node in one, names
    for number, node in enumerate(nodes):
        if not node.path or node.operation not in ("linear", "norm", "scale"):
            continue
        (before,) = node.inputs
        first = first_of.get(before) if len(tracer.consumers(before)) == 1 else None
        if node.operation == "linear":
            function = node.details["function"]
            function = function.function if isinstance(function, OfImages) else function
            own = function, kernels[node.path]
            one = None if first is None else compose(maps[first], _padding(paths[before]), own)
            first_of[number] = number if one is None else first
            maps[first_of[number]] = own if one is None else one
            paths[number] = []
            if one is not None:
                functions[nodes[first].path] = one[0], one[1].shape
                away |= {node.path, *(between.path for between in paths[before])}
        elif node.path in folded and first is not None:
            first_of[number], paths[number] = first, [*paths[before], node]
    left = {nodes[number].path: kernel for number, (_, kernel) in maps.items()}
    return Merged(left, functions, frozenset(away))


def _padding(between):
    return sum(node.details.get("pad", 0) for node in between)


def compose(first, pad, second):
    """Returns (function, kernel) of one linear map behind another, or None if there is none.

    Args:
      first: (`Convolution` or `MatrixProduct`, kernel).
      pad: pixels of zeros on each side between them.
      second: like `first`.
    """
    (function, kernel), (then, behind) = first, second
    both_products = isinstance(function, MatrixProduct) and isinstance(then, MatrixProduct)
    if both_products and not pad:
        return MatrixProduct(), kernel @ behind
    if _of_channels(function, kernel):
        whole = kernel.reshape(kernel.shape[-2:]) @ _dense(then, behind)
        sides = tuple((low + pad, high + pad) for low, high in _padding_of(then))
        return dataclasses.replace(_as_convolution(then), padding=sides, groups=1), whole
    if _of_channels(then, behind) and not pad:
        whole = _dense(function, kernel) @ behind.reshape(behind.shape[-2:])
        return dataclasses.replace(_as_convolution(function), groups=1), whole
    return None


def _as_convolution(function):
    product = isinstance(function, MatrixProduct)
    return Convolution(padding=((0, 0), (0, 0))) if product else function


def _padding_of(function):
    return _as_convolution(function).padding


def _of_channels(function, kernel):
    """Whether a map looks at one place alone, at each, and at all of its channels."""
    if isinstance(function, MatrixProduct):
        return True
    still = (function.strides, function.padding, function.groups) == ((1, 1), ((0, 0), (0, 0)), 1)
    return still and kernel.shape[:2] == (1, 1)


def _dense(function, kernel):
    """A kernel [kh, kw, C, features] that does in one group what this one does in several."""
    if isinstance(function, MatrixProduct):
        return kernel[None, None]
    rows, columns, channels, features = kernel.shape
    groups, each = function.groups, features // function.groups
    dense = np.zeros((rows, columns, groups, channels, groups, each))
    for g in range(groups):
        dense[:, :, g, :, g] = kernel[..., g * each : (g + 1) * each]
    return dense.reshape(rows, columns, groups * channels, features)
