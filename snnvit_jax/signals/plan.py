"""`Plan`: a forward pass with a fixed schedule, as its layers need to know it."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, eq=False)  # compared by identity: it is static in a program
class Plan:
    """What each layer computes, and at which steps.

    Attributes:
      steps: {spiking layer: time steps at which it emits}, ascending.
      computed: {any other layer: time steps at which its output is needed and not constant}.
      folded: names of the normalisations and scales that are part of a linear map before them.
      merged: {linear map: (function of it and of those that follow it, as one, shape of its
        kernel)}.
      away: names of the layers that are part of an earlier linear map: they hand on what they read.
      dtype: of spikes and kernels; currents and membrane potentials have at least float32.
    """

    steps: dict[str, tuple[int, ...]]
    computed: dict[str, tuple[int, ...]]
    folded: frozenset[str]
    dtype: jnp.dtype
    merged: dict[str, tuple[Callable, tuple]] = dataclasses.field(default_factory=dict)
    away: frozenset[str] = frozenset()

    def emitted(self, name):
        """Returns the steps at which a spiking layer emits.

        Args:
          name: of the layer.
        """
        return self.steps[name]

    def wanted(self, path):
        """Returns the steps at which a layer that does not spike is computed.

        Args:
          path: of its module, a tuple.
        """
        return self.computed["/".join(path)]
