"""ImageNet-1k: Spikformer (Zhou et al., ICLR 2023) that learns its time steps.

    python -m snnvit_jax.main --config=configs/imagenet.py:VARIANT --config.data.dir=DIR

DIR holds imagenet2012 as prepared by TensorFlow Datasets with file_format="array_record". For the
usual folders of JPEGs (DIR/train/CLASS/*.JPEG, DIR/val/CLASS/*.JPEG) add
`--config.data.name=image_folder --config.data.eval_split=val`.

| VARIANT | what | accuracy |
|---|---|---|
| spikformer_8_384, spikformer_8_512 (default), spikformer_10_512, spikformer_8_768 | published \
recipe, 310 epochs (on 8 V100: 8 days, by its author), with time steps learned to 2 of 4 | \
published, all 4 steps: 70.24, 73.38, 73.68, 74.81 % (paper, table 1); not reproduced here yet |
| finetune_time_steps | 31 epochs of 8-512 from trained weights: `--config.init_from=WEIGHTS` | |
| smoke | the whole recipe on 150 images and a tiny model, under two minutes on two cores | |

A GPU or TPU is needed for all but `smoke`; add `--config.model.dtype=bfloat16` there.
"""

from snnvit_jax import recipes
from snnvit_jax.config import default_config

PUBLISHED = ("spikformer_8_384", "spikformer_8_512", "spikformer_10_512", "spikformer_8_768")
VARIANTS = (*PUBLISHED, "finetune_time_steps", "smoke")


def get_config(variant="spikformer_8_512"):
    """Returns the configuration.

    Args:
      variant: one of `VARIANTS`.

    Raises:
      ValueError: for another variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown {variant=} of configs/imagenet.py; use {', '.join(VARIANTS)}")
    config = default_config()
    recipes.spikformer_imagenet(config)
    recipes.learn_time_steps(config, target=2.0)
    size = variant if variant in PUBLISHED else "spikformer_8_512"
    config.model.name = f"{size}_imagenet"
    config.data.name = "imagenet2012"
    config.data.eval_split = "validation"
    config.data.on_damaged = "skip"
    config.data.workers = 8
    if variant == "finetune_time_steps":
        recipes.finetune_time_steps(config, target=2.0)
    elif variant == "smoke":
        recipes.smoke(config, image_size=128, batch_size=24)
        config.data.train_split = "train[:150]"
        config.data.eval_split = "validation[:50]"
        config.data.workers = 0
    return config
