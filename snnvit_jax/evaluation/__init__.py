"""What is known of a finished model: accuracy, early exits, class rankings, timing.

Imports `common`, `data`, `distributed`, `energy`, `layers`, `models`, `time_steps`, `training` and
`xla`.
"""

from snnvit_jax.extras import needed

with needed("train"):
    from snnvit_jax.evaluation.evaluate import SATURATED_RATE, Evaluation, evaluate
    from snnvit_jax.evaluation.step import eval_step

__all__ = ["SATURATED_RATE", "Evaluation", "eval_step", "evaluate"]
