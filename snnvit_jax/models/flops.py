"""Arithmetic of a model as it is trained, to compare its deployed program with."""

import jax

from snnvit_jax.xla.flops import compiled_flops


def model_flops(model, variables, batch_size, image_shape=None):
    """Returns the floating-point operations of the masked model itself, `model.apply`.

    Args:
      model: from `create_model`.
      variables: {"params", "batch_stats"} of the model.
      batch_size: number of images, >= 1.
      image_shape: (H, W, C) of an image, or (T, H, W, C) of a recording; None for RGB images.
    """
    shape = image_shape or (*model.config.image_size, 3)
    images = jax.ShapeDtypeStruct((batch_size, *shape), "float32")
    return compiled_flops(model.apply, variables, images)
