"""Spiking vision transformers whose layers learn how many time steps they need."""

from snnvit_jax.deployment import deploy, load_deployed
from snnvit_jax.energy import energy_report
from snnvit_jax.models import Family, create_model, layer_names, list_models, register
from snnvit_jax.neurons import lif_scan, register_neuron
from snnvit_jax.neurons.recording import spikes
from snnvit_jax.pretrained import list_pretrained, load_pretrained
from snnvit_jax.time_steps.schedule import (
    TimeStepSchedule,
    with_schedule,
    with_time_steps,
)
from snnvit_jax.version import __version__
from snnvit_jax.weights import convert

__all__ = [
    "Family",
    "TimeStepSchedule",
    "__version__",
    "convert",
    "create_model",
    "deploy",
    "energy_report",
    "layer_names",
    "lif_scan",
    "list_models",
    "list_pretrained",
    "load_deployed",
    "load_pretrained",
    "register",
    "register_neuron",
    "spikes",
    "with_schedule",
    "with_time_steps",
]
