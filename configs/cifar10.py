"""CIFAR-10: Spikformer 4-384 (Zhou et al., ICLR 2023) that learns its time steps.

    python -m snnvit_jax.main --config=configs/cifar10.py --config.data.dir=DIR
    python -m snnvit_jax.main --config=configs/cifar10.py:small --config.data.dir=DIR

DIR holds the data set as prepared by TensorFlow Datasets with file_format="array_record". Held-out
accuracy is measured on the last tenth of the training images. The time-step phases are this
project's. The `small` variant has about 1 M parameters; what it reached is in
experiments/cifar10/README.md.
"""

from snnvit_jax.config import default_config


def get_config(variant="full"):
    """Returns the configuration.

    Args:
      variant: "full" (4-384, 300 epochs) or "small" (1 M parameters, for two CPU cores).

    Raises:
      ValueError: for another variant.
    """
    config = default_config()
    config.batch_size = 128
    config.time_step_penalty = 1.0

    config.data.name = "cifar10"
    config.data.train_split = "train[:90%]"
    config.data.eval_split = "train[90%:]"
    config.data.image_size = 32
    config.data.crop_padding = 4
    config.data.flip = True
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2470, 0.2435, 0.2616)

    if variant == "full":
        _full(config)
    elif variant == "small":
        _small(config)
    else:
        raise ValueError(f"unknown {variant=} of configs/cifar10.py; use full or small")
    return config


def _full(config):
    config.epochs = 300
    config.target_time_steps = 2.0
    config.time_step_start_epoch = 60.0
    config.time_step_anneal_epochs = 120.0
    config.time_step_freeze_epoch = 240.0
    config.model.name = "spikformer_4_384"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.weight_decay = 0.06
    config.optimizer.warmup_epochs = 20.0


def _small(config):
    config.epochs = 2
    config.eval_every_epochs = 0.25
    config.batch_size = 64
    # The weight of the penalty grows by this much in an epoch, of which there are only two.
    config.time_step_penalty = 20.0
    config.target_time_steps = 2.0
    config.time_step_start_epoch = 0.4
    config.time_step_anneal_epochs = 1.0
    config.time_step_freeze_epoch = 1.7
    config.model.name = "spikformer_4_384"
    config.model.embed_dim = 160
    config.model.num_heads = 5
    config.model.depth = 2
    config.model.pool = (True, True, True, False)
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_epochs = 0.1
