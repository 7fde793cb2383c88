"""What the models of all families do alike."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from snnvit_jax.common import values
from snnvit_jax.neurons.recording import recording
from snnvit_jax.signals import Signal, check_images
from snnvit_jax.time_steps.schedule import check_time_steps_of


def as_signal(module, images):
    """Returns a model's input as a signal.

    An image [B, H, W, C] is the same at every time step; a recording [B, T, H, W, C] brings its own
    frame at each.

    Args:
      module: the model, whose config has `image_size`, `time_steps`, `dtype` and `input_layer`.
      images: array, or a `Signal` that was made of one already (deployment, tracing).

    Raises:
      ValueError: for anything else, printing its shape or dtype.
    """
    if isinstance(images, Signal):
        return images
    config, params = module.config, module.variables.get("params", {})
    check_time_steps_of({"params": params}, config.time_steps)
    channels = image_channels(config, params)
    check_images(images, config.image_size, channels, config.time_steps)
    x = images.astype(config.dtype)
    return Signal.of(x) if np.ndim(x) == 5 else Signal.of(x[:, None], config.time_steps)


def image_channels(config, params):
    """Returns the channels of the images that parameters are for; None if they are not there.

    Args:
      config: of the model; its `input_layer` names the linear map that reads the images.
      params: of the model, or an empty dictionary.
    """
    for name in config.input_layer.split("/"):
        params = params.get(name, {})
    return params["kernel"].shape[-2] if "kernel" in params else None


def rematerialised(module, block, train):
    """Returns a class of blocks that keeps only its input for the backward pass, or the class.

    The former only in training, and while no spikes are recorded: their place in the forward pass
    is not known inside a block that is computed again (Chen et al., "Training Deep Nets with
    Sublinear Memory Cost", arXiv 1604.06174).

    Args:
      module: the bound model, whose config has `remat`, "block" or "none".
      block: Linen module class, called with (x, train).
      train: whether the block is trained.
    """
    again = train and module.config.remat == "block" and not recording(module)
    return nn.remat(block, static_argnums=(2,)) if again else block


def check_whole_numbers(config, names):
    """Raises ValueError for a setting that is no whole number of at least 1.

    Args:
      config: of a model.
      names: of the settings.
    """
    for name in names:
        values.whole(1).check(name, getattr(config, name))


def check_positive(config, names):
    """Raises ValueError for a setting that is no finite number above 0.

    Args:
      config: of a model.
      names: of the settings.
    """
    for name in names:
        values.number(above=0).check(name, getattr(config, name))


def check_image_size(config, stride):
    """Raises ValueError for an image size that is not two whole numbers divisible by a stride.

    Args:
      config: of a model.
      stride: pixels between two neighbouring tokens.
    """
    sides = config.image_size
    whole = values.several(values.whole(1), 2).fits(sides)
    if not whole or any(side % stride for side in sides):
        raise ValueError(
            f"image_size={sides!r} must be two whole numbers of pixels, height and width: it "
            f"must be divisible by the patch stride {stride}"
        )


def check_training_settings(config):
    """Raises ValueError for a `drop_path`, `remat` or `dtype` that is none.

    Args:
      config: of a model.
    """
    values.number(0, below=1).check("drop_path", config.drop_path)
    values.one_of(("none", "block")).check("remat", config.remat)
    try:
        fits = jnp.issubdtype(config.dtype, jnp.floating)
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(f"dtype={config.dtype!r} must be a floating-point type, such as float32")
    if jnp.dtype(config.dtype) == jnp.float16:
        raise ValueError(
            "dtype=float16 is not supported: its smallest gradients are lost unless the loss is "
            "scaled, and it ends at 65504; use bfloat16"
        )


def drop_path_of(config, block, blocks):
    """Returns the probability of leaving out a branch of a block: it grows from 0 in the first.

    Args:
      config: of a model; its `drop_path` is that of the last block.
      block: its number, from 0.
      blocks: how many there are.
    """
    return config.drop_path * block / max(blocks - 1, 1)
