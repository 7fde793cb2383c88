"""The registry of published models, and one folder for each family.

Imports `layers`, `neurons`, `time_steps` and `xla`.
"""

from snnvit_jax.models.registry import (
    OVERRIDES,
    REGISTRY,
    create_model,
    layer_names,
    variable_shapes,
)

__all__ = ["OVERRIDES", "REGISTRY", "create_model", "layer_names", "variable_shapes"]
