"""One training step as pure functions; no file system.

Imports `models` and what stands below them, `distributed` and `energy`.
"""

from snnvit_jax.training.step import (
    Procedure,
    TrainState,
    create_state,
    eval_step,
    is_finite,
    loss_fn,
    state_from_variables,
    train_step,
)

__all__ = [
    "Procedure",
    "TrainState",
    "create_state",
    "eval_step",
    "is_finite",
    "loss_fn",
    "state_from_variables",
    "train_step",
]
