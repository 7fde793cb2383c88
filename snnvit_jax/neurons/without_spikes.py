"""Kinds of neurons without spikes and without memory: the same network as an ANN."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from snnvit_jax.common import values
from snnvit_jax.neurons.neuron import SAFE_CURRENT, Neuron

MOST_LEVELS = 128  # beyond, bfloat16 has no number for every rate


@dataclasses.dataclass(frozen=True)
class _Memoryless(Neuron):
    """Answers to each time step by itself."""

    spiking: ClassVar[bool] = False

    def run_at(self, current_at, steps, shape, time_steps, threshold, parameters):
        """See `Neuron.run_at`."""
        currents = [jnp.broadcast_to(current_at(t), shape) for t in steps]
        return self.run(jnp.stack(currents, 1), threshold, parameters, axis=1)

    def steps_read(self, wanted):
        """See `Neuron.steps_read`: it has no memory."""
        return wanted


@dataclasses.dataclass(frozen=True)
class ReLUNeuron(_Memoryless):
    """No spikes but max(x, 0)."""

    kind: ClassVar[str] = "relu"

    def run(self, current, threshold, parameters, axis=0):
        """See `Neuron.run`."""
        return jax.nn.relu(current)

    def may_emit(self, arriving, constant, threshold, parameters):
        """See `Neuron.may_emit`."""
        return arriving | bool(np.max(constant) > 0)


@dataclasses.dataclass(frozen=True)
class QuantizedNeuron(_Memoryless):
    """No spikes but the firing rate of an `IFNeuron` with soft reset under a constant current.

    Over L = levels time steps at threshold θ that is clip(floor(L x / θ), 0, L) / L. The network is
    trained in one pass, and is then close to the spiking one of T = L, which starts from its
    weights; backward, the rate is x / θ for 0 < x / θ < 1 + 1 / L, and constant elsewhere. (Bu et
    al., "Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-latency Spiking Neural
    Networks", ICLR 2022, without their shift by half a level and their learned threshold, which the
    normalisation before the neuron makes up for.)

    Attributes:
      levels: L, the rates above 0; a whole number from 1 to 128.

    Raises:
      ValueError: for another number of levels.
    """

    kind: ClassVar[str] = "quantized"
    levels: int = 4

    def __post_init__(self):
        super().__post_init__()
        check_levels(self.levels)

    def run(self, current, threshold, parameters, axis=0):
        """See `Neuron.run`."""
        L, x = self.levels, current / jnp.asarray(threshold, current.dtype)
        rate = jax.lax.stop_gradient(jnp.clip(jnp.floor(L * x), 0, L) / L)
        line = jnp.clip(x, 0, 1 + 1 / L)
        return rate + (line - jax.lax.stop_gradient(line))  # adds nothing but its gradient

    def may_emit(self, arriving, constant, threshold, parameters):
        """See `Neuron.may_emit`."""
        return arriving | bool(np.max(constant) > SAFE_CURRENT * threshold / self.levels)


def check_levels(levels):
    """Raises ValueError for a number of levels that `QuantizedNeuron` cannot have.

    Args:
      levels: to be a whole number from 1 to `MOST_LEVELS`.
    """
    values.whole(1, MOST_LEVELS).check("levels", levels)
