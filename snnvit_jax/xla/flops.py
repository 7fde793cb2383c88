"""Arithmetic of a program, as its compiler counts it."""

import jax


def compiled_flops(function, *arguments):
    """Returns the floating-point operations of one call of a function, as compiled for this device.

    A multiply-accumulate is two operations; a window that reaches into padding counts what lies
    inside; every addition, division and comparison counts one. The count is that of XLA's cost
    analysis after optimisation, so what the compiler removes or repeats is seen.

    Args:
      function: of arrays; compiled for these shapes, not run.
      *arguments: arrays, `jax.ShapeDtypeStruct` or trees of them.

    Returns:
      A float.
    """
    return float(jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"])


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
