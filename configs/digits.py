from snnvit_jax.config import default_config


def get_config():
    """Returns the configuration."""
    config = default_config()
    config.epochs = 40
    config.batch_size = 64
    config.time_step_penalty = 1.0
    config.target_time_steps = 1.5
    config.time_step_start_epoch = 8.0
    config.time_step_anneal_epochs = 18.0
    config.time_step_freeze_epoch = 30.0
    config.model.embed_dim = 64
    config.model.num_heads = 4
    config.model.depth = 2
    config.data.name = "digits"
    config.data.image_size = 16
    config.data.crop_padding = 2
    config.data.mean = (0.3,)
    config.data.std = (0.4,)
    config.optimizer.warmup_epochs = 2.0
    config.optimizer.learning_rate = 3e-3
    return config
