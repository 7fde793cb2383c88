"""Spiking neurons over time: surrogate gradients, membrane dynamics, the Linen layer, recording.

Imports `time_steps` and `xla`.
"""

from snnvit_jax.neurons.lif import (
    KINDS,
    LIF,
    RESETS,
    Emission,
    NeuronConfig,
    check_neuron,
    lif_scan,
    lif_step,
)
from snnvit_jax.neurons.surrogates import SURROGATES, fire, surrogate_gradient

__all__ = [
    "KINDS",
    "LIF",
    "RESETS",
    "SURROGATES",
    "Emission",
    "NeuronConfig",
    "check_neuron",
    "fire",
    "lif_scan",
    "lif_step",
    "surrogate_gradient",
]
