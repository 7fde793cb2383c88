"""The time steps that a model ends at, on real images."""

import pytest

from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import loop


@pytest.mark.slow
@pytest.mark.parametrize("target", [1.5])
def test_training_ends_at_the_target(tmp_path, target):
    config = config_lib.default_config()
    config.epochs = 14
    config.batch_size = 128
    config.eval_every_epochs = 14.0
    config.time_step_penalty = 4.0
    config.target_time_steps = target
    config.time_step_start_epoch = 2.0
    config.time_step_anneal_epochs = 6.0
    config.time_step_freeze_epoch = 12.0
    config.model.embed_dim = 32
    config.model.num_heads = 2
    config.model.depth = 1
    config.data.image_size = 8
    config.data.mean, config.data.std = (0.3,), (0.4,)
    config.optimizer.warmup_epochs = 1.0
    config.optimizer.learning_rate = 5e-3
    config.optimizer.score_multiplier = 4.0
    summary = loop.Run(config, tmp_path / "run").train()
    assert abs(summary["average_time_steps"] - target) <= 0.25
    assert summary["accuracy"] > 0.5  # far above the 0.1 of chance: it learned meanwhile
