"""`LIF`: a spiking layer, the Linen shell around a neuron and its time-step mask."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from snnvit_jax.neurons.kinds import LIFNeuron
from snnvit_jax.neurons.neuron import MembraneNeuron, Neuron
from snnvit_jax.neurons.recording import record, recording
from snnvit_jax.signals import Signal
from snnvit_jax.signals.signal import OfImages
from snnvit_jax.time_steps import masks, spike_price
from snnvit_jax.xla import kernels
from snnvit_jax.xla.reductions import spread
from snnvit_jax.xla.rematerialisation import is_pointwise, source, value


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
      neuron: the kind of neuron and its settings.
    """

    threshold: float = 1.0
    neuron: Neuron = LIFNeuron()

    @nn.compact
    def __call__(self, current):  # B T ...
        """Returns what is emitted for a current: a `Signal` for a `Signal`, an array for an array.

        Args:
          current: `Signal` or array [B, T, ...]. A static signal is the same at every step.

        Raises:
          ValueError: for scores of another number of time steps.
        """
        if not isinstance(current, Signal):
            return self(Signal.of(current)).values
        if current.plan:
            return self._planned(current)
        T, own = current.time_steps, self._parameters(current.time_steps)
        score = self._score(T)
        run = Emission(self.neuron, self.threshold, T)
        emitted = current.emit(run, score, own, price=spike_price.price_of(self))
        if recording(self):  # only then are its values needed here
            record(self, jnp.moveaxis(emitted.values, 1, 0))
        details = {"neuron": self.neuron, "threshold": self.threshold, "parameters": own}
        return emitted.trace("neuron", self.path, (current,), **details)

    def _score(self, time_steps):
        if not self.has_variable("params", masks.SCORE):
            return self.param(masks.SCORE, lambda _: masks.initial_scores(time_steps))
        score = self.get_variable("params", masks.SCORE)  # `param` would refuse it in other words
        if jnp.shape(score) != (time_steps,):
            name, found = "/".join(self.path) or "the layer", jnp.shape(score)
            raise ValueError(
                f"{name} holds scores {found}, the current has {time_steps} time steps; see "
                "snn.with_time_steps"
            )
        return score

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


@dataclasses.dataclass(frozen=True)
class Emission:
    """What a layer emits for a current, filtered by its time-step mask.

    Attributes:
      neuron: a `Neuron`.
      threshold: firing threshold, > 0.
      time_steps: T.
      after: functions of images [B, ...] that follow, applied to each time step by itself.
    """

    neuron: Neuron
    threshold: float
    time_steps: int
    after: tuple = ()

    def followed_by(self, function):
        """Returns the emission followed by a function of images.

        Args:
          function: [B, ...] -> [B, ...].
        """
        return dataclasses.replace(self, after=(*self.after, function))

    def __call__(self, pending, score, parameters):
        """Returns [B, T, ...].

        Args:
          pending: current [B, T, ...], or [B, 1, ...] for one that is the same at every step; or
            how to compute it.
          score: [T] of the time steps.
          parameters: {name: array} of the neuron.
        """
        if self._by_steps(pending, parameters):
            return self._in_steps(pending, score, parameters)
        current = value(pending)
        shape = (current.shape[0], self.time_steps, *current.shape[2:])
        current = jnp.broadcast_to(current, shape)
        outputs = self.neuron.run(current, self.threshold, parameters, axis=1)
        emitted = masks.mask_spikes(outputs, score, self.neuron.estimator, axis=1)
        for function in self.after:
            emitted = OfImages(function)(emitted)
        return emitted

    def _by_steps(self, pending, parameters):
        scalars = all(not x.ndim for x in jax.tree.leaves(parameters))
        fits = isinstance(self.neuron, MembraneNeuron) and scalars and is_pointwise(pending)
        return fits and (kernels.steps_apart() or kernels.wanted(source(pending)))

    def _in_steps(self, pending, score, parameters):
        """Each step by itself: in one kernel, or put together when they are masked and pooled."""
        x = source(pending)
        leaves, structure = jax.tree.flatten((pending, list(score), self.neuron.ready(parameters)))
        place = next(i for i, leaf in enumerate(leaves) if leaf is x)
        small = [*leaves[:place], *leaves[place + 1 :]]
        function = _Steps(self.neuron, self.threshold, structure, place)
        if not kernels.steps_apart():
            return kernels.over_steps(function, self.time_steps, x, small)
        emitted = function([x[:, t] for t in range(x.shape[1])], small)
        for after in self.after:
            emitted = [after(y) for y in emitted]
        return jnp.stack(emitted, 1)


@dataclasses.dataclass(frozen=True)
class _Steps:
    """An emission as a function of the steps of a block of the current and of all else."""

    neuron: MembraneNeuron
    threshold: float
    structure: jax.tree_util.PyTreeDef
    place: int

    def __call__(self, xs, small):
        """Returns T arrays of K arrays; the last of fewer stands for all that follow."""
        membrane, emitted = jnp.zeros_like(xs[0]), []
        before, after = small[: self.place], small[self.place :]
        scores = self.structure.unflatten([*before, xs[0], *after])[1]
        for t, score in enumerate(scores):
            x = xs[min(t, len(xs) - 1)]
            pending, _, parameters = self.structure.unflatten([*before, x, *after])
            current = value(pending)
            numbers = {name: x.astype(current.dtype) for name, x in parameters.items()}
            threshold = jnp.asarray(self.threshold, current.dtype)
            membrane, spikes = self.neuron.step(membrane, current, threshold, numbers)
            mask = masks.binary_mask(score, self.neuron.estimator)
            emitted.append(spikes * spread(mask, spikes))
        return emitted
