"""Watching a forward pass: what enters each product and what each spiking layer emits.

Counts are exact on every device: they are integers, and sums over a batch are kept in two halves,
because an image alone may bring more than 10 million units to a layer and JAX has no 64-bit
integers by default. All of them are sums, so that those of several batches are added.
"""

import dataclasses
import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from snnvit_jax.energy import elementwise, operations
from snnvit_jax.energy.layer_operations import OPERATIONS, LayerShape
from snnvit_jax.energy.products import check_all_counted
from snnvit_jax.models import variable_shapes
from snnvit_jax.neurons import LIF, Neuron
from snnvit_jax.signals import Signal
from snnvit_jax.xla import programs

# The largest integer that still counts as one of a residual stream. A stream grows by at most 2
# with each block, from at most 2: every model of up to 62 blocks stays within it, whatever fires,
# and the sums of its layers within 32 bits. Anything above is a number to multiply by.
LARGEST_INTEGER = 127
LARGEST_BATCH = 2**15  # so that the halves of a sum fit into 32 bits


@dataclasses.dataclass(frozen=True)
class NeuronShape:
    """The static part of a spiking layer.

    Attributes:
      neurons: number of them.
      time_steps: T.
      neuron: what they are.
    """

    neurons: int
    time_steps: int
    neuron: Neuron


class Counts(flax.struct.PyTreeNode):
    """Exact sums over examples, in one array so that little is compiled and moved.

    Attributes:
      halves: upper and lower 16 bits of all counts, one after the other, int32 [2, n].
      layout: ((path of a count, its number of time steps), ...).
    """

    halves: jax.Array
    layout: tuple = flax.struct.field(pytree_node=False)


@dataclasses.dataclass(frozen=True)
class ModelShapes:
    """What a model's operations are known to be without any number, in forward order.

    Attributes:
      layers: {layer name: LayerShape} of its products.
      neurons: {layer name: NeuronShape} of its spiking layers.
    """

    layers: dict[str, LayerShape]
    neurons: dict[str, NeuronShape]


def observe(model, variables, images, *, mask=None, products=True, **apply_options):
    """Applies a model and counts what enters its products and what its neurons emit.

    Args:
      model: a Linen module.
      variables: {"params", "batch_stats"} of the model.
      images: [B, H, W, C], normalised, or recordings [B, T, H, W, C]; B <= 32768.
      mask: bool [B], False for examples that do not count; None counts all.
      products: whether products are counted, not neurons alone.
      **apply_options: passed on to `model.apply`.

    Returns:
      (what `model.apply` returns, `Counts`).

    Raises:
      ValueError: if a layer's input does not begin with the batch, or the batch is too large.
    """
    B = images.shape[0]
    if B > LARGEST_BATCH:
        raise ValueError(
            f"a batch of {B} images is too large to count; the most is {LARGEST_BATCH}"
        )
    mask = jnp.ones(B, bool) if mask is None else mask
    counts = {}

    def see_layer(name, module, args):
        operands = _operands(name, module, args, B)
        units = operations.input_units(module, operands)
        counts["units", name] = units
        for operand, x in operands.items():
            for part, count in _composition(x).items():
                counts["operands", name, operand, part] = count

    def see_neurons(name, module, emitted):
        counts["active", name] = _count(emitted.values != 0)
        return emitted

    with nn.intercept_methods(interceptor(see_layer if products else None, see_neurons)):
        result = model.apply(variables, images, **apply_options)
    return result, _exact_sums(counts, mask)


def decode(counts):
    """Returns the counts of `observe` as exact NumPy integers, sums over examples, int64 [T] each.

    Args:
      counts: `Counts`, on any device.

    Returns:
      A dictionary of
        units: {layer name: input units, each as often as it reaches an output of one channel};
        operands: {layer name: {operand name: {"total": sum of its small integers, "integers": how
          many values are whole numbers in [2, 127], "others": how many are not whole numbers in
          [0, 127]}}};
        active: {spiking layer: neurons that emit something}.
    """
    high, low = np.asarray(jax.device_get(counts.halves), np.int64)
    ends = np.cumsum([steps for _, steps in counts.layout])
    values = np.split(high * 2**16 + low, ends[:-1])
    paths = [path for path, _ in counts.layout]
    return traverse_util.unflatten_dict(dict(zip(paths, values, strict=True)))


def model_shapes(model, image_shape):
    """Returns the `ModelShapes` of a model, without computing anything.

    Args:
      model: a Linen module.
      image_shape: (H, W, C) of one image, (T, H, W, C) of a recording.

    Raises:
      ValueError: if the model computes a product that is not counted.
    """
    return _traced_shapes(model, tuple(image_shape), tuple(OPERATIONS.items()))


@functools.lru_cache(64)  # tracing takes as long as evaluating a small model
def _traced_shapes(model, image_shape, counted):
    """The same as `model_shapes`; `counted` are the operations that are known, as of now."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = variable_shapes(model, image_shape)
    layers, neurons, static, emissions = {}, {}, set(), {}

    def see_layer(name, module, args):
        layers[name] = operations.layer_shape(module, _operands(name, module, args, 1))
        if _is_static(module, args[0]):
            static.add(name)

    def see_neurons(name, module, emitted):
        _, T, *rest = emitted.shape
        neurons[name] = NeuronShape(int(np.prod(rest)), T, module.neuron)
        emissions[name] = jax.eval_shape(lambda x: x.values, emitted)
        return emitted

    with nn.intercept_methods(interceptor(see_layer, see_neurons)):
        jax.eval_shape(model.apply, variables, images)
    program, signals = _program(model, variables, images, emissions)
    found = programs.products(program) + elementwise.elementwise_products(program, signals)
    check_all_counted(found, layers)
    T = max((n.time_steps for n in neurons.values()), default=1)
    for name in static:  # computed once for all time steps
        layers[name] = dataclasses.replace(layers[name], repeats=T)
    return ModelShapes(layers, neurons)


def neuron_counts(model, image_shape):
    """Returns {spiking layer: number of its neurons}, whatever products the model has.

    Args:
      model: a Linen module.
      image_shape: of one image or recording.
    """
    return dict(_traced_neurons(model, tuple(image_shape)))


@functools.lru_cache(64)
def _traced_neurons(model, image_shape):
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    found = {}

    def see_neurons(name, module, emitted):
        found[name] = int(np.prod(emitted.shape[2:]))
        return emitted

    with nn.intercept_methods(interceptor(None, see_neurons)):
        jax.eval_shape(model.apply, variable_shapes(model, image_shape), images)
    return found


def _program(model, variables, images, emissions):
    """The program of a model between its neurons, and which of its arguments are signals.

    What a neuron emits comes from outside: its dynamics, in which potentials meet spikes, are
    counted as membrane updates. What it reads is computed.
    """

    def forward(variables, images, emissions):
        def intercept(call, args, kwargs, context):
            result = call(*args, **kwargs)
            if not _is_emission(context, result):
                return result
            currents.append(args[0].values)
            return result.replace(pending=emissions["/".join(context.module.path)], price=None)

        currents = []
        with nn.intercept_methods(intercept):
            return model.apply(variables, images), currents

    jaxpr = jax.make_jaxpr(forward)(variables, images, emissions).jaxpr
    weights = len(jax.tree.leaves(variables))
    return jaxpr, [i >= weights for i in range(len(jaxpr.invars))]


def _is_emission(context, result):
    is_call = context.method_name == "__call__" and isinstance(context.module, LIF)
    return is_call and isinstance(result, Signal)


def interceptor(see_layer, see_neurons):
    """Returns what `nn.intercept_methods` takes to watch a model that is applied.

    Args:
      see_layer: called with (name, bound module, arguments) of every product before it is computed;
        None for nothing.
      see_neurons: called with (name, bound module, `Signal`) of what every spiking layer emits;
        returns the signal that the model goes on with.
    """

    def intercept(call, args, kwargs, context):
        module, method = context.module, context.method_name
        if see_layer and method == "__call__" and operations.is_counted(module):
            see_layer("/".join(module.path), module, args)
        result = call(*args, **kwargs)
        if _is_emission(context, result):
            return see_neurons("/".join(module.path), module, result)
        return result

    return intercept


def _is_static(module, x):
    """Whether a layer reads what is the same at every time step, and is computed once."""
    if isinstance(x, Signal):
        return x.static
    return operations.has_time(module, x) and x.shape[1] == 1


def _operands(name, module, args, batch):
    for x in args:
        if x.shape[:1] != (batch,):
            raise ValueError(
                f"{name}: its input {x.shape} must begin with the batch of {batch} and then time, "
                "so that its operations belong to an example and a step"
            )
    return operations.named_operands(module, args)


def _composition(x):  # B T ...
    """Sums and counts by value; what is not a small integer enters no sum."""
    small = (x == jnp.round(x)) & (x >= 0) & (x <= LARGEST_INTEGER)
    total = _count(jnp.where(small, x, 0))
    return {"total": total, "integers": _count(small & (x > 1)), "others": _count(~small)}


def _count(x):
    """Sums [B, T, ...] to int32 [B, T]."""
    return jnp.sum(x.astype(jnp.int32), axis=tuple(range(2, x.ndim)))


def _exact_sums(counts, mask):
    """Sums {path: int32 [B, T]} over the examples that count."""
    layout = tuple((path, count.shape[1]) for path, count in counts.items())
    values = jnp.where(mask[:, None], jnp.concatenate(list(counts.values()), axis=1), 0)
    return Counts(jnp.stack([jnp.sum(values >> 16, 0), jnp.sum(values & 0xFFFF, 0)]), layout)
