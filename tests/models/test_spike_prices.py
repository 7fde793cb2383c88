"""The price of spikes in every family: each layer that has one feels it, once for each spike."""

import jax
import numpy as np
import pytest
from family_forms import FAMILY_FORMS, small
from quickly import QUICKLY

import snnvit_jax as snn
from snnvit_jax import energy
from snnvit_jax.time_steps import masks, spike_price


def compiled(model, variables, images, names):
    """A function: {layer: price} -> (gradient [T] of each layer's scores, spikes by layer)."""

    def total(params, prices):
        collections = variables | {"params": params} | spike_price.as_variables(prices, 1)
        y, seen = model.apply(collections, images, train=True, mutable=["batch_stats", "spikes"])
        return y.sum(), snn.spikes(seen)

    def gradients(prices):
        gradient, spikes = jax.grad(total, has_aux=True)(variables["params"], prices)
        return masks.scores(gradient), spikes

    program = jax.jit(gradients).lower(dict.fromkeys(names, 0.0))
    return program.compile(compiler_options=QUICKLY)


@pytest.mark.parametrize("form", FAMILY_FORMS)
def test_each_priced_layer_feels_its_own_price_once_for_each_spike(lively, form):
    model, variables, images, _ = small(lively, form, time_steps=2)
    driven = energy.driven(model, images.shape[1:])
    free = dict.fromkeys((name for name, layer in driven.items() if layer.accumulates), 0.0)
    gradients = compiled(model, variables, images, free)
    without, spikes = gradients(free)
    assert sum(bool(spikes[name].any()) for name in free) > len(free) / 2
    for name in free:
        price = max(1.0, float(np.abs(without[name]).max()))  # so that it is not rounded away
        added = gradients(free | {name: price})[0][name] - without[name]
        count = np.asarray(spikes[name]).reshape(2, -1).sum(1)
        if driven[name].values == spikes[name][0, 0].size:  # else pooled, and charged behind that
            np.testing.assert_allclose(added, price * count, rtol=1e-3, err_msg=name)
        assert ((added > 0) == (count > 0)).all(), name
