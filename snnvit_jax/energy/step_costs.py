"""What a time step of a layer costs, before anything is trained: the operations that it can drive.

A layer that emits nothing at a step spares every product after it the additions for its spikes, in
a residual stream those of all later blocks too. How many these are is not derived here but
counted, with the counts of the energy report: by silencing one layer of a network in which every
neuron fires.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from snnvit_jax import backends
from snnvit_jax.backends import value
from snnvit_jax.energy import operations
from snnvit_jax.energy.observation import model_shapes
from snnvit_jax.neurons import LIF, NeuronConfig


def step_costs(model, image_shape):
    """Returns {layer name: operations}: what one time step of each spiking layer costs at most.

    These are the accumulates that an image needs less when the layer emits nothing at a step at
    which every neuron of all other layers fires, and one membrane update for each of its neurons.
    Attention needs none of its accumulates once q is silent, or k or v.

    Args:
      model: a Linen module from `create_model`.
      image_shape: (H, W, C) of one image.

    Returns:
      Whole numbers >= 1, in forward order.

    Raises:
      ValueError: if the model computes a product that is not counted.
    """
    shapes = model_shapes(model, image_shape)
    names = tuple(shapes.neurons)
    silent = jnp.concatenate([jnp.zeros((1, len(names))), jnp.eye(len(names))])
    units = _units(1 - silent, model=model, image_shape=tuple(image_shape), names=names)
    driven = sum(
        np.asarray(count, np.int64) * shapes.layers[name].fan_out for name, count in units.items()
    )
    spared = (driven[0] - driven[1:]).tolist()
    return {
        name: operations + shapes.neurons[name].neurons
        for name, operations in zip(names, spared, strict=True)
    }


@functools.partial(backends.jit, static_argnames=("model", "image_shape", "names"))
def _units(firing, *, model, image_shape, names):  # [n, layers] in {0, 1}
    """Input units of each product at one step, int32 [n], for n networks of layers that fire."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    images, variables = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (images, shapes))

    def count(firing):
        fires, found = dict(zip(names, firing, strict=True)), {}
        with nn.intercept_methods(_interceptor(fires, found)):
            model.apply(variables, images)
        return found

    return jax.lax.map(count, firing)  # one after the other: early signals are large


def _interceptor(fires, found):
    def intercept(call, args, kwargs, context):
        module, method = context.module, context.method_name
        name = "/".join(module.path)
        spikes_enter = method == "__call__" and operations.is_counted(module)
        if spikes_enter and operations.has_time(module, args[0]):
            units = operations.input_units(module, operations.named_operands(module, args))
            found[name] = units[0, 0]  # every step is the same
        result = call(*args, **kwargs)
        if method == "deferred" and isinstance(module, LIF):
            return _emit_everywhere(result, fires[name])
        return result

    return intercept


def _emit_everywhere(emission, fires):
    """An `Emission` of the same shape in which every neuron emits `fires`, 0 or 1, at each step."""
    signal = jax.eval_shape(value, emission.current)
    return emission.replace(
        current=jnp.full(signal.shape, fires, signal.dtype),
        score=jnp.ones_like(emission.score),
        neuron=NeuronConfig(kind="relu"),  # which emits its current
    )
