"""Checkpoints and their checksums; the only package that imports orbax.

Imports `common` and `distributed`.
"""

from snnvit_jax.extras import needed

with needed("train"):
    from snnvit_jax.checkpoints.best import Measured
    from snnvit_jax.checkpoints.checkpoints import (
        BEST,
        LAST,
        Checkpoints,
        finished_checkpoints,
        is_best,
        load_variables,
        restore,
        restore_best,
    )

__all__ = [
    "BEST",
    "LAST",
    "Checkpoints",
    "Measured",
    "finished_checkpoints",
    "is_best",
    "load_variables",
    "restore",
    "restore_best",
]
