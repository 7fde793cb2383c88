"""Families of spiking vision transformers: the registry, and one folder for each of them.

Imports `common`, `layers`, `neurons`, `signals`, `time_steps` and `xla`.
"""

from snnvit_jax.models import (
    metaspikeformer,
    qkformer,
    sdt,
    spikformer,
    spikingformer,
    spikingresformer,
)
from snnvit_jax.models.family import Family, Recipe
from snnvit_jax.models.registry import (
    FAMILIES,
    check_model,
    create_model,
    describe,
    family_of,
    layer_names,
    list_models,
    register,
    variable_shapes,
)

for _family in (
    spikformer.FAMILY,
    spikingformer.FAMILY,
    sdt.FAMILY,
    metaspikeformer.FAMILY,
    qkformer.FAMILY,
    spikingresformer.FAMILY,
):
    register(_family)

DEFAULT_MODEL = "spikformer_4_384"  # of a configuration that names none

__all__ = [
    "DEFAULT_MODEL",
    "FAMILIES",
    "Family",
    "Recipe",
    "check_model",
    "create_model",
    "describe",
    "family_of",
    "layer_names",
    "list_models",
    "register",
    "variable_shapes",
]
