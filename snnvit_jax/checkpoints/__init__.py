"""Checkpoints and their checksums; the only package that imports orbax.

Imports `common` and `distributed`.
"""

from snnvit_jax.extras import needed

with needed("train"):
    from snnvit_jax.checkpoints.checkpoints import (
        Checkpoints,
        finished_checkpoints,
        load_variables,
        restore,
    )

__all__ = ["Checkpoints", "finished_checkpoints", "load_variables", "restore"]
