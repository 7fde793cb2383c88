"""Counting operations and energy from what actually flows through a model.

Every convolution, matrix product and attention product is observed during a forward pass. Where
its input is spikes, or the small integers of a residual stream, each unit of input costs one
accumulate for each output it reaches, padding excepted; anything else costs multiply-accumulates.
Not counted, as in the published figures: normalisation (folded in deployment), pooling, membrane
updates and residual additions.

Energies of a 45 nm process (Horowitz, ISSCC 2014): 4.6 pJ for a 32-bit floating-point
multiply-accumulate, 0.9 pJ for an accumulate.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from snnvit_jax.models.layers import SpikingAttention

MAC_PICOJOULE = 4.6
AC_PICOJOULE = 0.9


@dataclasses.dataclass(frozen=True)
class LayerShape:
    """The static part of a layer's cost.

    Attributes:
      macs: multiply-accumulates of one example and one time step, were the input real-valued.
      fan_out: accumulates for each unit of `input_units`.
      time_steps: how often the layer is computed for one example.
    """

    macs: int
    fan_out: int
    time_steps: int


@dataclasses.dataclass(frozen=True)
class LayerEnergy:
    """What one layer costs for one image.

    Attributes:
      accumulates: mean number at each time step, [T].
      macs: multiply-accumulates over all its time steps; 0 where the input is spikes.
      picojoule: energy of both.
    """

    accumulates: np.ndarray
    macs: int
    picojoule: float


@dataclasses.dataclass(frozen=True)
class EnergyReport:
    """What a model costs for one image, on average.

    Attributes:
      layers: {layer name: LayerEnergy}, in forward order.
    """

    layers: dict[str, LayerEnergy]

    @property
    def accumulates(self):
        """Accumulates (synaptic operations) of one image."""
        return float(sum(layer.accumulates.sum() for layer in self.layers.values()))

    @property
    def macs(self):
        """Multiply-accumulates of one image."""
        return sum(layer.macs for layer in self.layers.values())

    @property
    def microjoule(self):
        """Energy of one image."""
        return sum(layer.picojoule for layer in self.layers.values()) * 1e-6

    @property
    def not_spiking(self):
        """Names of the layers that see something else than spikes or whole numbers."""
        return [name for name, layer in self.layers.items() if layer.macs]


def energy_report(model, variables, images, *, mac=MAC_PICOJOULE, ac=AC_PICOJOULE):
    """Counts a model's operations on a batch of images, and their energy.

    The input embedding is counted once, as it is computed. Whole-number inputs count as
    accumulates (the convention of the Spikformer paper).

    Args:
      model: a Linen module.
      variables: {"params", "batch_stats"} of the model.
      images: [B, H, W, C], normalised.
      mac: energy of a multiply-accumulate in pJ.
      ac: energy of an accumulate in pJ.

    Returns:
      An `EnergyReport`, means over the batch.
    """
    count = jax.jit(lambda v, x: observe(model, v, x)[1])
    units, whole = count(variables, images)
    totals = {name: np.asarray(u, np.int64).sum(1) for name, u in units.items()}
    shapes = layer_shapes(model, images.shape[-1])
    return report_from_counts(
        shapes, totals, {n: bool(w) for n, w in whole.items()}, len(images), mac=mac, ac=ac
    )


def report_from_counts(shapes, totals, whole, examples, *, mac=MAC_PICOJOULE, ac=AC_PICOJOULE):
    """Returns the energy report of counts summed over many batches.

    Args:
      shapes: {layer name: LayerShape}, from `layer_shapes`.
      totals: {layer name: input units [T] summed over examples}.
      whole: {layer name: whether every input was a whole number >= 0}.
      examples: number of examples, >= 1.
      mac: energy of a multiply-accumulate in pJ.
      ac: energy of an accumulate in pJ.
    """
    layers = {}
    for name, shape in shapes.items():
        accumulates = np.zeros(shape.time_steps)
        macs = 0 if whole[name] else shape.macs * shape.time_steps
        if whole[name]:
            accumulates = np.asarray(totals[name], np.float64) * shape.fan_out / examples
        layers[name] = LayerEnergy(accumulates, macs, float(accumulates.sum() * ac + macs * mac))
    return EnergyReport(layers)


def observe(model, variables, images, **apply_options):
    """Applies a model and counts what enters each convolution, product and attention.

    Args:
      model: a Linen module.
      variables: {"params", "batch_stats"} of the model.
      images: [B, H, W, C], normalised.
      **apply_options: passed on to `model.apply`.

    Returns:
      (what `model.apply` returns, (units, whole)): units {layer name: int32 [T, B]}, the number of
      input units that reach an output, each as often as it reaches one of a single channel; whole
      {layer name: bool}, whether every input was a whole number >= 0.
    """
    units, whole = {}, {}

    def watch(module, operands):
        name = "/".join(module.path)
        units[name] = _COUNTERS[type(module)].units(module, *operands)
        whole[name] = jnp.all(jnp.stack([jnp.all(_is_whole(x)) for x in operands]))

    with nn.intercept_methods(_interceptor(watch)):
        result = model.apply(variables, images, **apply_options)
    return result, (units, whole)


def layer_shapes(model, channels=3):
    """Returns {layer name: LayerShape} in forward order, without computing anything.

    Args:
      model: a Linen module.
      channels: of the images.
    """
    return dict(_traced_layer_shapes(model, channels))


@functools.cache  # tracing takes as long as evaluating a small model
def _traced_layer_shapes(model, channels):
    shapes = {}

    def watch(module, operands):
        shapes["/".join(module.path)] = _COUNTERS[type(module)].shape(module, *operands)

    def trace():
        images = jnp.zeros((1, *model.config.image_size, channels))
        variables = model.init(jax.random.key(0), images)
        with nn.intercept_methods(_interceptor(watch)):
            model.apply(variables, images)

    jax.eval_shape(trace)
    return shapes


def _interceptor(watch):
    def intercept(next_function, args, kwargs, context):
        if context.method_name == "__call__" and type(context.module) in _COUNTERS:
            watch(context.module, args)
        return next_function(*args, **kwargs)

    return intercept


def _is_whole(x):
    return (x >= 0) & (x == jnp.round(x))


def _sum_per_step(x):
    """Sums [B, T, ...] to int32 [T, B]; an input without time ([B, C]) has one step."""
    x = x[:, None] if x.ndim == 2 else x
    return jnp.sum(x.astype(jnp.int32), axis=tuple(range(2, x.ndim))).T


class _DenseCounter:
    """Every input unit reaches every output channel once."""

    @staticmethod
    def units(module, x):
        return _sum_per_step(x)

    @staticmethod
    def shape(module, x):
        time_steps = 1 if x.ndim == 2 else x.shape[1]
        return LayerShape(
            x.size // x.shape[0] // time_steps * module.features, module.features, time_steps
        )


class _ConvCounter:
    """An input unit reaches as many pixels of a channel as windows contain it."""

    @staticmethod
    def units(module, x):
        return _sum_per_step(_convolve_with_ones(module, x))

    @staticmethod
    def shape(module, x):  # B T H W C
        pixels = jax.eval_shape(lambda x: _convolve_with_ones(module, x), x).shape[2:4]
        macs = int(np.prod((*module.kernel_size, *pixels))) * x.shape[-1] * module.features
        return LayerShape(macs, module.features, x.shape[1])


def _convolve_with_ones(module, x):  # B T H W C
    """Sums, for each output pixel, the inputs in its window: [B, T, H', W', 1]."""
    B, T, *_ = x.shape
    per_pixel = jnp.sum(x.astype(jnp.float32), -1, keepdims=True)
    sums = jax.lax.conv_general_dilated(
        per_pixel.reshape(B * T, *per_pixel.shape[2:]),
        jnp.ones((*module.kernel_size, 1, 1)),
        window_strides=(module.strides,) * 2 if isinstance(module.strides, int) else module.strides,
        padding=[(module.padding, module.padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return sums.reshape(B, T, *sums.shape[1:])


class _AttentionCounter:
    """kᵀ v costs a row of additions for each spike of k or v (the sparser), q (kᵀ v) of q.

    This is the published count T h N d² (min(r_k, r_v) + r_q) with firing rates r, exact per
    example and step.
    """

    @staticmethod
    def units(module, q, k, v):  # B T N C
        return _sum_per_step(q) + jnp.minimum(_sum_per_step(k), _sum_per_step(v))

    @staticmethod
    def shape(module, q, k, v):
        _, T, N, C = q.shape
        head_dim = C // module.num_heads
        return LayerShape(2 * N * C * head_dim, head_dim, T)


_COUNTERS = {
    nn.Dense: _DenseCounter,
    nn.Conv: _ConvCounter,
    SpikingAttention: _AttentionCounter,
}
