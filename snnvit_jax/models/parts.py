"""What the models of all families do alike."""

import numbers

import flax.linen as nn
import numpy as np

from snnvit_jax.signals import Signal, check_images


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
    config = module.config
    channels = image_channels(config, module.variables.get("params", {}))
    check_images(images, config.image_size, channels, config.time_steps)
    values = images.astype(config.dtype)
    if np.ndim(images) == 5:
        return Signal.of(values)
    return Signal.of(values[:, None], config.time_steps)


def image_channels(config, params):
    """Returns the channels of the images that parameters are for; None if they are not there.

    Args:
      config: of the model; its `input_layer` names the linear map that reads the images.
      params: of the model, or an empty dictionary.
    """
    for name in config.input_layer.split("/"):
        params = params.get(name, {})
    return params["kernel"].shape[-2] if "kernel" in params else None


def rematerialised(block, remat, train):
    """Returns a class of blocks that keeps only its input for the backward pass, or the class.

    The former only in training: nothing can be recorded from inside a block computed again
    (Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174).

    Args:
      block: Linen module class, called with (x, train).
      remat: "block" or "none".
      train: whether the block is trained.
    """
    return nn.remat(block, static_argnums=(2,)) if train and remat == "block" else block


def check_whole_numbers(config, names):
    """Raises ValueError for a setting that is no whole number of at least 1.

    Args:
      config: of a model.
      names: of the settings.
    """
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
            raise ValueError(f"{name}={value!r} must be a whole number of at least 1")


def check_positive(config, names):
    """Raises ValueError for a setting that is no finite number above 0.

    Args:
      config: of a model.
      names: of the settings.
    """
    for name in names:
        value = getattr(config, name)
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not (number and 0 < value < np.inf):
            raise ValueError(f"{name}={value!r} must be a number above 0")


def check_training_settings(config):
    """Raises ValueError for a `drop_path` outside [0, 1) or an unknown `remat`.

    Args:
      config: of a model.
    """
    if not 0 <= config.drop_path < 1:
        raise ValueError(f"drop_path={config.drop_path} must lie in [0, 1)")
    if config.remat not in ("none", "block"):
        raise ValueError(f"remat={config.remat!r} must be one of none, block")


def drop_path_of(config, block, blocks):
    """Returns the probability of leaving out a branch of a block: it grows from 0 in the first.

    Args:
      config: of a model; its `drop_path` is that of the last block.
      block: its number, from 0.
      blocks: how many there are.
    """
    return config.drop_path * block / max(blocks - 1, 1)
