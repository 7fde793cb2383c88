"""Digits before a simulated event camera: a small network that learns its time steps, in minutes.

Data: the 1,797 real 8x8 images that come with scikit-learn, moved in front of a camera that is
simulated (docs/events.md says how). The digits are real, the recordings are not. Each becomes ten
frames, and at each time step the network sees the next one. Nothing is downloaded.

    python -m snnvit_jax.main --config=configs/digits_dvs.py[:spikingformer, :sdt or :qkformer]

Measured results, with seeds and hardware: experiments/digits_dvs/README.md.
"""

from snnvit_jax.config import default_config, use_model

# A small form of each: embed_dim, num_heads, depth and pool are below.
MODELS = {
    "spikformer": "spikformer_2_256_dvs",
    "spikingformer": "spikingformer_2_256_dvs",
    "sdt": "sdt_2_256_dvs",
    "qkformer": "qkformer_2_256_dvs",
}


def get_config(family="spikformer"):
    """Returns the configuration.

    Args:
      family: one of `MODELS`.

    Raises:
      ValueError: for another one.
    """
    if family not in MODELS:
        raise ValueError(f"unknown {family=} of configs/digits_dvs.py; use {', '.join(MODELS)}")
    config = default_config()
    use_model(config, MODELS[family])
    config.epochs = 30
    config.batch_size = 64
    config.eval_every_epochs = 3.0
    config.average_decay = 0.99

    # A tenth with all ten steps; 40 % in which the model gives them up one by one, 15 % more in
    # which it may exchange them, and the rest with fixed masks.
    config.time_step_penalty = 1.0
    config.target_time_steps = 4.0
    config.time_step_start = 0.1
    config.time_step_anneal = 0.4
    config.time_step_freeze = 0.65

    config.model.time_steps = 10
    config.model.embed_dim = 64
    config.model.num_heads = 4
    config.model.depth = 2 if family == "qkformer" else 1
    if family != "qkformer":  # it always halves the image four times
        config.model.pool = (True, True, True, False)

    config.data.name = "digits_dvs"
    config.data.image_size = 16
    config.data.crop_padding = 1

    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup = 2 / 30
    return config
