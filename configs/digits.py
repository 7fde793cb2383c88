"""Handwritten digits: a small network that learns its time steps, in minutes on two cores.

Data: the 1,797 real 8x8 images that come with scikit-learn (Alpaydin & Kaynak, 1998); a fixed
stratified test split of 360. Nothing is downloaded.

    python -m snnvit_jax.main --config=configs/digits.py[:spikingformer or :sdt]

Measured results, with seeds and hardware: experiments/digits/README.md.
"""

from snnvit_jax.config import default_config

# A small form of each: embed_dim, num_heads and depth are below.
MODELS = {
    "spikformer": "spikformer_4_384",
    "spikingformer": "spikingformer_4_384",
    "sdt": "sdt_2_512",
}


def get_config(family="spikformer"):
    """Returns the configuration.

    Args:
      family: one of `MODELS`.

    Raises:
      ValueError: for another one.
    """
    if family not in MODELS:
        raise ValueError(f"unknown {family=} of configs/digits.py; use {', '.join(MODELS)}")
    config = default_config()
    config.model.name = MODELS[family]
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
