"""`LIF`: a spiking layer, the Linen shell around a neuron and its time-step mask."""

import functools

import flax.linen as nn
import jax.numpy as jnp

from snnvit_jax.neurons.kinds import LIFNeuron
from snnvit_jax.neurons.neuron import Neuron
from snnvit_jax.neurons.recording import record, recording
from snnvit_jax.signals import Signal
from snnvit_jax.time_steps import masks, spike_price


class LIF(nn.Module):
    """A spiking layer that owns one trainable score per time step.

    Takes a current [B, T, ...] and emits spikes [B, T, ...]: time is the second axis, so that
    folding it into the batch for a convolution moves no data. The time-step mask filters what is
    emitted; the reset sees the unfiltered spikes, so a mask never changes the layer's dynamics.
    Only the current is kept for the backward pass, which computes membrane potentials and spikes
    again. Records the emitted spikes under the layer's name when the collection "spikes" is
    mutable.

    Attributes:
      threshold: firing threshold of this layer.
      neuron: what it shares with the rest of the model.
    """

    threshold: float = 1.0
    neuron: Neuron = LIFNeuron()

    @nn.compact
    def __call__(self, current):  # B T ...
        """Returns what is emitted for a current: a `Signal` for a `Signal`, an array for an array.

        Args:
          current: `Signal` or array [B, T, ...]. A static signal is the same at every step.
        """
        if not isinstance(current, Signal):
            return self(Signal.of(current)).values
        if current.plan:
            return self._planned(current)
        T, own = current.time_steps, self._parameters(current.time_steps)
        score = self.param(masks.SCORE, lambda _: masks.initial_scores(T))
        if score.shape != (T,):
            raise ValueError(
                f"{'/'.join(self.path)} holds scores of {len(score)} time steps, the model has "
                f"{T}; see snn.with_time_steps"
            )
        run = functools.partial(emit, self.neuron, self.threshold, T)
        emitted = current.emit(run, score, own, price=spike_price.price_of(self))
        if recording(self):
            record(self, jnp.moveaxis(emitted.values, 1, 0))
        about = {"neuron": self.neuron, "threshold": self.threshold, "parameters": own}
        return emitted.trace("neuron", self.path, (current,), **about)

    def _parameters(self, time_steps):
        initial = self.neuron.parameters(time_steps, self.threshold)
        return {name: self.param(name, create) for name, create in initial.items()}

    def _planned(self, current):
        """The same with a fixed schedule: at the steps that have an effect, no others."""
        steps = current.plan.emitted("/".join(self.path))
        if not steps:
            return current.silent()
        wide = jnp.promote_types(current.plan.dtype, jnp.float32)
        constant = self.get_variable("constants", "current", jnp.zeros((), wide))
        values = current.values.astype(constant.dtype)
        shape = (values.shape[0], *values.shape[2:])

        def current_at(t):
            if not current.active(t):
                return constant
            return values[:, current.index(t)] + constant

        T, own = current.time_steps, self._parameters(current.time_steps)
        spikes = self.neuron.run_at(current_at, steps, shape, T, self.threshold, own)
        return current.at_steps_only(spikes.astype(current.plan.dtype), steps)


def emit(neuron, threshold, time_steps, current, score, parameters):
    """Returns what a layer emits, filtered by its time-step mask, [B, T, ...].

    Args:
      neuron: a `Neuron`.
      threshold: firing threshold, > 0.
      time_steps: T.
      current: [B, T, ...], or [B, 1, ...] for one that is the same at every step.
      score: [T] of the time steps.
      parameters: {name: array} of the neuron.
    """
    current = jnp.broadcast_to(current, (current.shape[0], time_steps, *current.shape[2:]))
    outputs = neuron.run(current, threshold, parameters, axis=1)
    return masks.mask_spikes(outputs, score, neuron.estimator, axis=1)
