"""What spikes cost, before anything is trained: the accumulates that a layer can drive.

A spike is added wherever a product reads it, in a residual stream by all later blocks. How often
that is, is not derived here but counted, with the counts of the energy report: by silencing one
layer of a network in which every neuron fires.
"""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from snnvit_jax.deployment import planning
from snnvit_jax.energy import operations
from snnvit_jax.energy.observation import interceptor, model_shapes
from snnvit_jax.models import variable_shapes
from snnvit_jax.xla import backends


@dataclasses.dataclass(frozen=True)
class Driven:
    """What one time step of a spiking layer drives.

    Attributes:
      accumulates: that an image needs less when the layer emits nothing at a step at which every
        neuron of all other layers fires; 0 for a layer that no product of spikes reads. Attention
        needs none for keys and values once k or v is silent, so that they count for both.
      values: that the layer passes on, after pooling if it pools.
      time_steps: T.
    """

    accumulates: int
    values: int
    time_steps: int


def driven(model, image_shape):
    """Returns {layer name: `Driven`} of every spiking layer, in forward order.

    Args:
      model: a Linen module from `create_model`.
      image_shape: (H, W, C) of one image, (T, H, W, C) of a recording.

    Raises:
      ValueError: if the model computes a product that is not counted.
    """
    shapes = model_shapes(model, image_shape)
    units, values = _silence_each(model, tuple(image_shape), tuple(shapes.neurons))
    accumulates = sum(
        np.asarray(count, np.int64) * shapes.layers[name].fan_out for name, count in units.items()
    )
    spared = (accumulates[0] - accumulates[1:]).tolist()
    return {
        name: Driven(count, values[name], shape.time_steps)
        for count, (name, shape) in zip(spared, shapes.neurons.items(), strict=True)
    }


def spike_prices(model, image_shape):
    """Returns {layer name: price}: a spike's share of the accumulates at full activity.

    One spike of each neuron at each time step costs 1 in all.

    Args:
      model: a Linen module from `create_model`.
      image_shape: (H, W, C) of one image, (T, H, W, C) of a recording.

    Raises:
      ValueError: if the model computes a product that is not counted.
    """
    layers = driven(model, image_shape)
    total = sum(layer.accumulates * layer.time_steps for layer in layers.values())
    return {name: layer.accumulates / layer.values / total for name, layer in layers.items()}


def _silence_each(model, image_shape, names):
    """Input units of each product at one step, int32 [1 + layers], and values of each layer.

    First with every neuron firing, then with one layer after the other silent.
    """
    shapes = variable_shapes(model, image_shape)
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    images = jnp.zeros((1, *image_shape))

    def count(firing):
        fires, units = dict(zip(names, firing, strict=True)), {}

        def see_layer(name, module, args):
            if not operations.reads_mean(module, args[0]):
                read = operations.input_units(module, operations.named_operands(module, args))
                units[name] = read[0, 0]  # every step is the same

        def see_neurons(name, module, emitted):
            everywhere = jnp.full(emitted.shape, fires[name], jnp.float32)
            return emitted.replace(pending=everywhere, price=None)

        with nn.intercept_methods(interceptor(see_layer, see_neurons)):
            model.apply(variables, images)
        return units

    silent = jnp.concatenate([jnp.zeros((1, len(names))), jnp.eye(len(names))])
    # One after the other: the first signals are large.
    units = backends.jit(functools.partial(jax.lax.map, count))(1 - silent)
    return units, _passed_on(model, variables, image_shape)


def _passed_on(model, variables, image_shape):
    """{layer: number of values that it passes on, after pooling if they are pooled}."""
    tracer, values = planning.trace(model, variables, image_shape), {}
    for number, node in enumerate(tracer.nodes):
        if node.operation == "neuron":
            readers = [tracer.nodes[i] for i in tracer.consumers(number)]
            pooled = readers and all(reader.operation == "map" for reader in readers)
            values[node.path] = math.prod((readers[0] if pooled else node).shape)
    return values
