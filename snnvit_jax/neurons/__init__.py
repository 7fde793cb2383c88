"""Spiking neurons over time: surrogate gradients, membrane dynamics, kinds, the Linen layer.

Imports `common`, `signals`, `time_steps` and `xla`.
"""

from snnvit_jax.neurons.dynamics import RESETS, lif_scan, lif_step
from snnvit_jax.neurons.kinds import (
    KINDS,
    IFNeuron,
    LIFNeuron,
    ParallelNeuron,
    PLIFNeuron,
    QuantizedNeuron,
    ReLUNeuron,
    as_neuron,
    create_neuron,
    describe,
    register_neuron,
)
from snnvit_jax.neurons.lif import LIF
from snnvit_jax.neurons.neuron import MembraneNeuron, Neuron, Update
from snnvit_jax.neurons.surrogates import SURROGATES, fire, surrogate_gradient

__all__ = [
    "KINDS",
    "LIF",
    "RESETS",
    "SURROGATES",
    "IFNeuron",
    "LIFNeuron",
    "MembraneNeuron",
    "Neuron",
    "PLIFNeuron",
    "ParallelNeuron",
    "QuantizedNeuron",
    "ReLUNeuron",
    "Update",
    "as_neuron",
    "create_neuron",
    "describe",
    "fire",
    "lif_scan",
    "lif_step",
    "register_neuron",
    "surrogate_gradient",
]
