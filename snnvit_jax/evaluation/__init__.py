"""What is known of a finished model: accuracy, early exits, sensitivity.

Imports `data`, `energy`, `models`, `neurons`, `time_steps`, `training`, `distributed`, `xla`.
"""

from snnvit_jax.evaluation.evaluate import SATURATED_RATE, Evaluation, evaluate

__all__ = ["SATURATED_RATE", "Evaluation", "evaluate"]
