"""The configuration under its public name: what files in configs/ and notebooks import."""

from snnvit_jax.extras import needed

with needed("train"):
    from snnvit_jax.runs.config import (
        default_config,
        differences,
        from_json,
        to_json,
        validate,
    )
    from snnvit_jax.runs.model_settings import use_model

__all__ = ["default_config", "differences", "from_json", "to_json", "use_model", "validate"]
