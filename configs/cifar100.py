"""CIFAR-100: Spikformer (Zhou et al., ICLR 2023) that learns its time steps.

    python -m snnvit_jax.main --config=configs/cifar100.py:VARIANT --config.data.dir=DIR

DIR holds the data set as prepared by TensorFlow Datasets with file_format="array_record". Accuracy
is measured on the last tenth of the training images, which are not trained on.

| VARIANT | what | accuracy |
|---|---|---|
| spikformer_4_384 (default), spikformer_2_384, spikformer_4_256 | published recipe, 310 epochs, \
with time steps learned to 2 of 4 | published, all 4 steps: 77.86, 76.95, 75.96 % (paper, table 2; \
10,000 test images; trained on all 50,000); not reproduced here yet |
| finetune_time_steps | 31 epochs from trained weights: `--config.init_from=WEIGHTS` | |
| smoke | the whole recipe on 1,024 images and a tiny model, under two minutes on two cores | |
"""

from snnvit_jax import recipes
from snnvit_jax.config import default_config

PUBLISHED = ("spikformer_4_384", "spikformer_2_384", "spikformer_4_256")
VARIANTS = (*PUBLISHED, "finetune_time_steps", "smoke")


def get_config(variant="spikformer_4_384"):
    """Returns the configuration.

    Args:
      variant: one of `VARIANTS`.

    Raises:
      ValueError: for another variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown {variant=} of configs/cifar100.py; use {', '.join(VARIANTS)}")
    config = default_config()
    recipes.spikformer_cifar(config)
    recipes.learn_time_steps(config, target=2.0)
    config.model.name = variant if variant in PUBLISHED else "spikformer_4_384"
    config.data.name = "cifar100"
    config.data.train_split = "train[:90%]"
    config.data.eval_split = "train[90%:]"
    config.data.mean, config.data.std = recipes.CIFAR100_MEAN, recipes.CIFAR100_STD
    if variant == "finetune_time_steps":
        recipes.finetune_time_steps(config, target=2.0)
    elif variant == "smoke":
        recipes.smoke(config, image_size=32, batch_size=64)
        config.data.train_split = "train[:1024]"
        config.data.eval_split = "train[90%:91%]"
    return config
