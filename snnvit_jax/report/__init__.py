"""Figures and the page of a finished run.

Imports `common` and `energy`.
"""

from snnvit_jax.extras import needed

with needed("train"):
    from snnvit_jax.report.report import write

__all__ = ["write"]
