"""Figures and the page of a finished run.

Imports `common`, `energy` and `time_steps`.
"""

from snnvit_jax.extras import needed

with needed("train"):
    from snnvit_jax.report.comparison import render as comparison_page
    from snnvit_jax.report.report import write

__all__ = ["comparison_page", "write"]
