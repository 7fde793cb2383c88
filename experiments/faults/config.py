"""A network small enough to be killed fifty times: 180 steps on the digits, all phases in them.

    python experiments/faults/run.py OUT

Every step is logged, every epoch saved, every other one evaluated.
"""

from snnvit_jax.config import default_config


def get_config():
    """Returns the configuration."""
    config = default_config()
    config.epochs = 15
    config.batch_size = 120
    config.eval_every_epochs = 2.0
    config.save_every_seconds = 0.0
    config.log_every_steps = 1
    config.time_step_penalty = 2.0
    config.target_time_steps = 1.5
    config.time_step_start_epoch = 2.0
    config.time_step_anneal_epochs = 5.0
    config.time_step_freeze_epoch = 12.0
    config.optimizer.warmup_epochs = 1.0
    config.optimizer.score_multiplier = 50.0
    config.average_decay = 0.9
    config.model.time_steps = 2
    config.model.embed_dim = 16
    config.model.num_heads = 2
    config.model.depth = 1
    config.data.image_size = 8
    config.data.crop_padding = 1
    config.data.mean = (0.3,)
    config.data.std = (0.4,)
    return config
