"""Handwritten digits: a small network that learns its time steps, in minutes on two cores.

Data: the 1,797 real 8x8 images that come with scikit-learn (Alpaydin & Kaynak, 1998); a fixed
stratified test split of 360. Nothing is downloaded.

    python -m snnvit_jax.main --config=configs/digits.py[:FAMILY, a key of MODELS]

Measured results, with seeds and hardware: experiments/digits/README.md, and those of all families:
experiments/families/README.md.
"""

from snnvit_jax.config import default_config, use_model
from snnvit_jax.recipes import SAFE_CLIP_NORM

ONE_STAGE = {"embed_dim": 80, "num_heads": 4, "depth": 2}
# Family -> (model, a small form of it, side of the images).
MODELS = {
    "spikformer": ("spikformer_4_384", ONE_STAGE, 8),
    "spikingformer": ("spikingformer_4_384", ONE_STAGE, 8),
    "sdt": ("sdt_2_512", ONE_STAGE, 8),
    "qkformer": ("qkformer_4_384", {"embed_dim": 128, "num_heads": 4, "depth": 3}, 8),
    "spikingresformer": (
        "spikingresformer_cifar",
        {
            **{"embed_dim": (16, 32, 64), "num_heads": (1, 2, 4), "depth": (1, 1, 2)},
            "group_size": 16,
        },
        8,
    ),
    # Its 16 pixels to a token are more than a digit has: they are enlarged.
    "metaspikeformer": (
        "metaspikeformer_8_384_imagenet",
        {"embed_dim": (16, 32, 64, 80), "num_heads": 4, "depth": (1, 1), "mlp_ratio": 2.0},
        32,
    ),
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
    name, sizes, side = MODELS[family]
    config = default_config()
    use_model(config, name)
    config.model.update(sizes)
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

    config.data.name = "digits"
    config.data.image_size = side
    config.data.crop_padding = side // 8
    config.data.randaugment.num_ops = 2  # mild: a digit stays what it is
    config.data.randaugment.magnitude = 4.0
    config.data.randaugment.probability = 0.7
    config.data.randaugment.operations = "cifar"
    config.data.mean = (0.3,)
    config.data.std = (0.4,)

    config.optimizer.learning_rate = 3e-3
    config.optimizer.clip_norm = SAFE_CLIP_NORM
    if family == "metaspikeformer":
        config.model.neuron.alpha = 2.0  # else it does not begin to learn
        config.optimizer.clip_norm = 1.0
        # It learns later than the others, and an attention in which q, k and v do not meet at a
        # step is followed by normalisations in a row that make noise of its silence.
        config.time_step_start, config.time_step_anneal, config.time_step_freeze = 2 / 9, 1 / 3, 0.7
        config.time_step_groups = "module"
    config.optimizer.warmup = 2 / 72
    return config
