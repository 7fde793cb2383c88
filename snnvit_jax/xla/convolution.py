"""Convolutions in groups of channels, as each backend computes them quickly.

XLA's compiler for CPUs has a fast convolution of one group only: one of several groups takes 7
times as long as its groups one after the other, and its gradient 15 times. There it is written as
those; elsewhere, and over several devices, which may divide the groups, it is one operation.
"""

import functools

import jax
import jax.numpy as jnp

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# With fewer channels in a group, or more groups, a loop over groups is no gain.
_LEAST_CHANNELS = 4
_MOST_GROUPS = 128


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
    options = strides, padding, dilation, groups, wide
    in_groups = 1 < groups <= _MOST_GROUPS and kernel.shape[2] >= _LEAST_CHANNELS
    if in_groups and jax.device_count() == 1:
        return _grouped(options, images, kernel)
    return _at_once(options, images, kernel)


def _at_once(options, images, kernel):
    strides, padding, dilation, groups, wide = options
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


def _one_by_one(options, images, kernel):
    *same, groups, wide = options
    parts = zip(jnp.split(images, groups, -1), jnp.split(kernel, groups, -1), strict=True)
    return jnp.concatenate([_at_once((*same, 1, wide), *part) for part in parts], -1)


# Its gradient by hand: otherwise what each backend keeps for it would be kept on every backend.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _grouped(options, images, kernel):
    cpu, default = (functools.partial(form, options) for form in (_one_by_one, _at_once))
    return jax.lax.platform_dependent(images, kernel, cpu=cpu, default=default)


def _forward(options, images, kernel):
    return _grouped(options, images, kernel), (images, kernel)


def _backward(options, operands, gradient):
    def of(form, images, kernel, gradient):
        return jax.vjp(functools.partial(form, options), images, kernel)[1](gradient)

    cpu, default = (functools.partial(of, form) for form in (_one_by_one, _at_once))
    return jax.lax.platform_dependent(*operands, gradient, cpu=cpu, default=default)


_grouped.defvjp(_forward, _backward)
