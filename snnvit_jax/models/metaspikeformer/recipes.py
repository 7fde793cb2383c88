"""Meta-SpikeFormer's published recipe, of two stages. There is none for CIFAR or events.

Source: github.com/BICLab/Spike-Driven-Transformer-V2, classification/.
"""

from snnvit_jax.models import recipe_parts
from snnvit_jax.models.family import Recipe


def imagenet(config):
    """Sets the first stage, from scratch: 200 epochs of T = 1.

    There are no time steps to learn: those come with the second stage.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    recipe_parts.imagenet_by_steps(config, epochs=200, warmup_epochs=10)
    config.model.time_steps = 1
    config.batch_size = 1024  # 128 on each of 8 GPUs
    config.optimizer.learning_rate = 6e-4 * 1024 / 256
    config.optimizer.name = "lamb"
    config.optimizer.clip_norm = 1.0  # as timm's LAMB does by itself
    config.optimizer.trust_clip = True


def finetune(config):
    """Sets the second stage: 50 epochs of T = 4 from weights of T = 1.

    It is here where time steps are learned. The authors follow, besides the labels, the hard labels
    of a CAFormer-B36; `distillation.teacher` takes the folder of a run of this project, whose soft
    labels are followed.

    Args:
      config: a ConfigDict with the recipe of the first stage; changed in place.
    """
    config.epochs = 50
    config.batch_size = 192  # 24 on each of 8 GPUs
    config.model.time_steps = 4
    config.optimizer.learning_rate = 1.5e-5  # 2e-5 for 256 images
    config.optimizer.warmup = 5 / 50
    config.time_step_start = 5 / 50


RECIPES = {"imagenet": Recipe(imagenet), "finetune": Recipe(finetune)}


def small(name):
    """Returns sizes for a trial: one block in each of the last two stages.

    Args:
      name: of a model.
    """
    del name
    return {"embed_dim": (8, 16, 32, 32), "num_heads": 2, "depth": (1, 1)}
