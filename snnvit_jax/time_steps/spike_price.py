"""A price on every spike: the objective's gradient with respect to the accumulates it drives.

A spike costs an addition wherever a product reads it, so the energy of a spiking network is that of
its spikes, whichever time steps they come at. The objective can charge them:

    weight x (accumulates of an image / accumulates if every neuron fired at every time step)

The accumulates are sums over spikes with fixed factors, hence their gradient with respect to a
spike is a constant. It is added where the spike is emitted; nothing else is computed or kept.
"""

import jax
import jax.numpy as jnp
from flax import traverse_util

COLLECTION = "spike_prices"
NAME = "price"


@jax.custom_vjp
def charge(spikes, price):
    """Returns spikes unchanged; in the backward pass each of them has the price as gradient too.

    Args:
      spikes: any shape, after the mask of their time step.
      price: scalar >= 0 (gets no gradient itself).
    """
    return spikes


def _charge_forward(spikes, price):
    return spikes, price


def _charge_backward(price, gradient):
    return gradient + price.astype(gradient.dtype), jnp.zeros_like(price)


charge.defvjp(_charge_forward, _charge_backward)


def price_of(module):
    """Returns the price that a bound module was given, or None.

    Args:
      module: a spiking layer.
    """
    return module.get_variable(COLLECTION, NAME)


def as_variables(prices, factor):
    """Returns prices as a variable collection that a model's spiking layers read.

    Args:
      prices: {layer name: price of one spike}, as from `energy.spike_prices`.
      factor: that multiplies all of them, a number or a traced scalar.
    """
    flat = {
        (*name.split("/"), NAME): jnp.asarray(price * factor, jnp.float32)
        for name, price in prices.items()
    }
    return {COLLECTION: traverse_util.unflatten_dict(flat)}
