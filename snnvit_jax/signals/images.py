"""What a model takes: images or recordings, in one set of words for every reader of a model."""

import jax.numpy as jnp
import numpy as np


def check_images(images, image_size, channels=None, time_steps=None):
    """Raises ValueError for anything but a batch of normalised images or recordings.

    Args:
      images: to be [B, H, W, C], or [B, T, H, W, C] for recordings; floating point.
      image_size: (H, W) in pixels that the model is made for.
      channels: C; None where it is not known.
      time_steps: T of a model that takes recordings too; None for images only.

    Raises:
      ValueError: printing the type, the shape or the dtype.
    """
    if not hasattr(images, "dtype"):
        raise ValueError(f"images must be an array, got {type(images).__name__}")
    shape, kind = np.shape(images), jnp.result_type(images)
    rank = 5 if time_steps is not None and len(shape) == 5 else 4
    height, width = image_size
    wanted = (*((time_steps,) if rank == 5 else ()), height, width)
    fits = len(shape) == rank and shape[1:-1] == wanted
    if fits and channels is not None:
        fits = shape[-1] == channels
    if not fits or shape[0] < 1:
        frame = f"{height}, {width}, {'channels' if channels is None else channels}"
        recordings = f" or [B, {time_steps}, {frame}]" if time_steps is not None else ""
        raise ValueError(f"images must be [B, {frame}]{recordings} with B >= 1, got {shape}")
    if not jnp.issubdtype(kind, jnp.floating):
        raise ValueError(f"images must be floating point and normalised, got {kind}")
