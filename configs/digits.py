"""Handwritten digits: a small Spikformer that learns its time steps, in minutes on two cores.

Data: the 1,797 real 8x8 images that come with scikit-learn (Alpaydin & Kaynak, 1998); a fixed
stratified test split of 360. Nothing is downloaded.

    python -m snnvit_jax.main --config=configs/digits.py

Measured results, with seeds and hardware: experiments/digits/README.md.
"""

from snnvit_jax.config import default_config


def get_config():
    """Returns the configuration."""
    config = default_config()
    config.epochs = 72
    config.batch_size = 64
    config.eval_every_epochs = 4.0
    config.average_decay = 0.99

    # Seven epochs with all steps, then 27 in which the model gives them up one by one, 12 more in
    # which it may exchange them, and the rest with fixed masks. As shares, they follow `epochs`.
    config.time_step_penalty = 1.0
    config.target_time_steps = 2.0
    config.time_step_start = 7 / 72
    config.time_step_anneal = 27 / 72
    config.time_step_freeze = 46 / 72

    config.model.embed_dim = 80
    config.model.num_heads = 4
    config.model.depth = 2

    config.data.name = "digits"
    config.data.image_size = 8
    config.data.crop_padding = 1
    config.data.randaugment.num_ops = 2  # mild: a digit stays what it is
    config.data.randaugment.magnitude = 4.0
    config.data.randaugment.probability = 0.7
    config.data.randaugment.operations = "cifar"
    config.data.mean = (0.3,)
    config.data.std = (0.4,)

    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup = 2 / 72
    return config
