"""Convolutions of images, in groups of channels where wanted."""

import jax

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(images, kernel, strides, padding, dilation=(1, 1), groups=1, wide=None):
    """Returns a convolution of images [N, H, W, C], [N, H', W', features].

    Args:
      images: [N, H, W, C].
      kernel: [kh, kw, C / groups, features].
      strides: (rows, columns).
      padding: ((before, after) rows, (before, after) columns), by zeros.
      dilation: of the kernel, (rows, columns).
      groups: of channels that see each other.
      wide: dtype of the result; None for that of the operands.
    """
    return jax.lax.conv_general_dilated(
        images,
        kernel,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=_LAYOUT,
        feature_group_count=groups,
        preferred_element_type=wide,
    )
