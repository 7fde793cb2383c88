"""One training step as pure functions; no file system.

Imports `common`, `distributed`, `layers`, `time_steps` and `xla`; no checkpoints, no runs.
"""

from snnvit_jax.extras import needed

with needed("train"):
    from snnvit_jax.training.step import (
        Procedure,
        TrainState,
        create_state,
        is_finite,
        loss_fn,
        state_from_variables,
        train_step,
    )

__all__ = [
    "Procedure",
    "TrainState",
    "create_state",
    "is_finite",
    "loss_fn",
    "state_from_variables",
    "train_step",
]
