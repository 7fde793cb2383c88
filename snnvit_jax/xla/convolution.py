"""Convolutions in groups of channels, as each backend computes them quickly.

XLA's compiler for CPUs has a fast convolution of one group only: one of several groups takes 7
times as long as its groups one after the other, and its gradient 15 times. There it is written as
those, and one of single channels (depthwise) as a sum of shifted images, 10 to 30 times as fast;
elsewhere, and over several devices, which may divide the groups, it is one operation.

Where a mesh has two axes, XLA adds the gradient of the kernel of such a convolution up over all
devices, although only those along the axis of the batch hold different images: it comes out too
large by the size of the other axis (seen with jax 0.10.2). There it is written tap by tap.
"""

import functools

import jax
import jax.numpy as jnp

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# With fewer channels in a group, or more groups, a loop over groups is no gain.
_LEAST_CHANNELS = 4
_MOST_GROUPS = 128
_MOST_TAPS = 81  # of a kernel of single channels


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
    if groups > 1 and _is_mesh_of_two_axes():
        return _divided(options, images, kernel)
    if jax.device_count() == 1 and (of_cpu := _for_cpu(options, kernel.shape)):
        return _on_cpu(of_cpu, options, images, kernel)
    return _at_once(options, images, kernel)


def _for_cpu(options, shape):
    """How a CPU computes it quickly: a function of (options, images, kernel), None for as it is."""
    strides, _, dilation, groups, _ = options
    rows, columns, inside, features = shape
    if 1 < groups <= _MOST_GROUPS and inside >= _LEAST_CHANNELS:
        return _one_by_one
    alone = inside == 1 and groups == features > 1 and rows * columns <= _MOST_TAPS
    return _shifted if alone and strides == dilation == (1, 1) else None


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _shifted(options, images, kernel):
    """Of single channels: the sum over the taps of a kernel of images moved by as much."""
    _, padding, _, _, wide = options
    rows, columns = kernel.shape[:2]
    edges = ((0, 0, 0), *((*edge, 0) for edge in padding), (0, 0, 0))  # less than none crops
    padded = jax.lax.pad(images, jnp.zeros((), images.dtype), edges).astype(wide or images.dtype)
    height, width = padded.shape[1] - rows + 1, padded.shape[2] - columns + 1
    taps = kernel[:, :, 0].astype(padded.dtype)
    return sum(
        padded[:, row : row + height, column : column + width] * taps[row, column]
        for row in range(rows)
        for column in range(columns)
    )


def _shifted_forward(options, images, kernel):
    return _shifted(options, images, kernel), (images, kernel)


def _shifted_backward(options, operands, gradient):
    """By hand: the derivative of a slice would write a whole image for each tap."""
    images, kernel = operands
    around = zip(kernel.shape[:2], options[1], strict=True)
    padding = tuple((size - 1 - before, size - 1 - after) for size, (before, after) in around)
    back = *options[:1], padding, *options[2:]
    of_images = _shifted(back, gradient, jnp.flip(kernel, (0, 1)).astype(gradient.dtype))
    of_kernel = jax.vjp(lambda k: _at_once(options, images, k), kernel)[1](gradient)[0]
    return of_images.astype(images.dtype), of_kernel


_shifted.defvjp(_shifted_forward, _shifted_backward)


# Its gradient by hand: otherwise what each backend keeps for it would be kept on every backend.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _on_cpu(of_cpu, options, images, kernel):
    cpu, default = (functools.partial(form, options) for form in (of_cpu, _at_once))
    return jax.lax.platform_dependent(images, kernel, cpu=cpu, default=default)


def _forward(of_cpu, options, images, kernel):
    return _on_cpu(of_cpu, options, images, kernel), (images, kernel)


def _backward(of_cpu, options, operands, gradient):
    def of(form, images, kernel, gradient):
        return jax.vjp(functools.partial(form, options), images, kernel)[1](gradient)

    cpu, default = (functools.partial(of, form) for form in (of_cpu, _at_once))
    return jax.lax.platform_dependent(*operands, gradient, cpu=cpu, default=default)


_on_cpu.defvjp(_forward, _backward)


def _is_mesh_of_two_axes():
    """Whether what is traced is divided in two ways, as `Placement.in_view` says."""
    return sum(size > 1 for size in jax.sharding.get_abstract_mesh().shape.values()) > 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _divided(options, images, kernel):
    return _at_once(options, images, kernel)


def _divided_forward(options, images, kernel):
    return _divided(options, images, kernel), (images, kernel)


def _divided_backward(options, operands, gradient):
    images, kernel = operands
    of_images = jax.vjp(lambda x: _at_once(options, x, kernel), images)[1](gradient)[0]
    return of_images, _by_tap(options, images, kernel, gradient).astype(kernel.dtype)


def _by_tap(options, images, kernel, gradient):
    """The gradient of the kernel: for each of its taps, a product summed over images and pixels."""
    strides, padding, dilation, groups, _ = options
    rows, columns, inside, features = kernel.shape
    padded = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    of_groups = gradient.reshape(*gradient.shape[:3], groups, features // groups)
    wide = jnp.promote_types(images.dtype, jnp.float32)

    def tap(place):
        starts = [at * step for at, step in zip(place, dilation, strict=True)]
        seen = [
            slice(start, start + (size - 1) * stride + 1, stride)
            for start, size, stride in zip(starts, gradient.shape[1:3], strides, strict=True)
        ]
        window = padded[:, seen[0], seen[1]].reshape(*gradient.shape[:3], groups, inside)
        return jnp.einsum("nhwgi,nhwgo->igo", window, of_groups, preferred_element_type=wide)

    taps = jnp.stack([tap(divmod(place, columns)) for place in range(rows * columns)])
    return taps.reshape(kernel.shape)


_divided.defvjp(_divided_forward, _divided_backward)
