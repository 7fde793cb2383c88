"""Integrate-and-fire neurons over time: `lif_scan` (pure) and `LIF` (its Linen shell).

One time step, with current x, membrane potential v and threshold θ:

    h[t] = v[t-1] + (x[t] - v[t-1]) / tau      charge  (tau=None: h = v + x, no leak)
    o[t] = 1 if h[t] >= θ else 0               fire    (backward: surrogate gradient)
    v[t] = h[t] * (1 - o[t])                   reset   (soft: h - θ * o)

This is SpikingJelly's LIFNode with decay_input=True and v_reset=0, which the published spiking
transformers use (Fang et al., "SpikingJelly", Science Advances 2023).
"""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from snnvit_jax.neurons.recording import record, recording
from snnvit_jax.neurons.surrogates import fire
from snnvit_jax.time_steps import masks, spike_price
from snnvit_jax.xla.backends import compute, hold, unstack, value

RESETS = {
    "hard": lambda h, o, threshold: h * (1 - o),
    "soft": lambda h, o, threshold: h - threshold * o,
}

KINDS = ("lif", "if", "plif", "relu")


def lif_step(
    membrane,
    current,
    tau=2.0,
    threshold=1.0,
    reset="hard",
    surrogate="sigmoid",
    *,
    alpha=None,
    detach_reset=True,
):
    """Advances a leaky-integrate-and-fire neuron by one time step.

    Args:
      membrane: membrane potential v[t-1] after the last reset, any shape.
      current: input current x[t], shaped like `membrane`.
      tau: membrane time constant in time steps, >= 1 (a number or a traced scalar, so that it can
        be learned); None integrates without leak: h = v + x.
      threshold: firing threshold θ > 0; a potential exactly at it fires.
      reset: "hard" (to zero) or "soft" (subtracts the threshold).
      surrogate: shape of the surrogate gradient, a key of `surrogates.SURROGATES`.
      alpha: its sharpness; None takes the shape's default.
      detach_reset: no gradient flows through the spike in the reset.

    Returns:
      (v[t], o[t], h[t]): potential after reset, spike in {0, 1}, potential before reset.
    """
    charged = membrane + (current if tau is None else (current - membrane) / tau)
    charged = hold(charged)
    spike = fire(charged - threshold, surrogate, alpha)
    reset_spike = jax.lax.stop_gradient(spike) if detach_reset else spike
    return RESETS[reset](charged, reset_spike, threshold), spike, charged


def lif_scan(
    current,
    tau=2.0,
    threshold=1.0,
    reset="hard",
    surrogate="sigmoid",
    *,
    alpha=None,
    detach_reset=True,
    return_membrane=False,
    axis=0,
):
    """Runs leaky-integrate-and-fire neurons over all time steps, from a membrane at rest (0).

    Written out step by step, not as a loop of the program: XLA then compiles the forward pass into
    one fusion, which reads the current once and keeps the membrane in registers.

    Args:
      current: input current [T, ...], T >= 1, floating point; every element beyond the axis of time
        is a neuron of its own.
      tau: membrane time constant in time steps, >= 1; None integrates without leak.
      threshold: firing threshold, > 0.
      reset: "hard" or "soft".
      surrogate: shape of the surrogate gradient, a key of `surrogates.SURROGATES`.
      alpha: its sharpness; None takes the shape's default.
      detach_reset: no gradient flows through the spike in the reset.
      return_membrane: also return the potential before reset.
      axis: of time, >= 0.

    Returns:
      Spikes in {0, 1}, shaped and typed like the current; with `return_membrane`, (spikes, h).

    Raises:
      ValueError: for a current without time steps or not floating point, an unknown reset or
        surrogate, tau < 1, or a threshold that is not positive.
      TypeError: if current is no array.
    """
    _check_scan(current, tau, threshold, reset, axis)
    tau = tau if tau is None else jnp.asarray(tau, current.dtype)
    threshold = jnp.asarray(threshold, current.dtype)

    membrane, spikes, potentials = 0, [], []
    for x in unstack(current, axis):
        membrane, spike, charged = lif_step(
            membrane, x, tau, threshold, reset, surrogate, alpha=alpha, detach_reset=detach_reset
        )
        spikes.append(spike)
        potentials.append(charged)
    spikes = jnp.concatenate(spikes, axis)
    return (spikes, jnp.concatenate(potentials, axis)) if return_membrane else spikes


def _check_scan(current, tau, threshold, reset, axis):
    if not hasattr(current, "dtype"):
        raise TypeError(f"current must be an array [T, ...], got {type(current).__name__}")
    shape, dtype = jnp.shape(current), jnp.result_type(current)
    if not 0 <= axis < len(shape) or shape[axis] < 1:
        raise ValueError(f"current needs at least one time step on its axis {axis}, got {shape=}")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"current must be floating point, got {dtype}")
    if reset not in RESETS:
        raise ValueError(f"unknown {reset=}; use one of {', '.join(RESETS)}")
    check_neuron(tau, threshold)


def check_neuron(tau, threshold):
    """Raises ValueError for a time constant below 1 or a threshold that is not positive.

    Args:
      tau: number, None or a traced value (not checked).
      threshold: number or a traced value (not checked).
    """
    if tau is not None and not isinstance(tau, jax.core.Tracer) and not tau >= 1:
        raise ValueError(f"{tau=} must be at least 1 time step (or None for no leak)")
    if not isinstance(threshold, jax.core.Tracer) and not threshold > 0:
        raise ValueError(f"{threshold=} must be positive")


@dataclasses.dataclass(frozen=True)
class NeuronConfig:
    """What all neurons of a model share; the threshold is the layer's own.

    Attributes:
      kind: "lif" (leaky), "if" (no leak), "plif" (leaky, time constant learned per layer), or
        "relu": no spikes but max(x, 0) at each time step by itself, for the same network as an ANN.
      tau: membrane time constant in time steps (start value for "plif"; unused for "if").
      reset: "hard" or "soft".
      surrogate: shape of the surrogate gradient.
      alpha: sharpness of the surrogate; None for the shape's default.
      detach_reset: no gradient through the spike in the reset.
      estimator: straight-through estimator of the time-step mask (`masks.ESTIMATORS`).
    """

    kind: str = "lif"
    tau: float = 2.0
    reset: str = "hard"
    surrogate: str = "sigmoid"
    alpha: float | None = None
    detach_reset: bool = True
    estimator: str = "identity"

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"unknown neuron kind={self.kind!r}; use one of {', '.join(KINDS)}")
        if self.kind == "plif" and (self.tau is None or not self.tau > 1):
            raise ValueError(f"a learnable time constant must start above 1, got tau={self.tau}")
        if self.reset not in RESETS:
            raise ValueError(f"unknown reset={self.reset!r}; use one of {', '.join(RESETS)}")
        check_neuron(self.tau, 1.0)
        # Traced, not computed: importing this must not start the devices, because several processes
        # have to find each other before.
        scalar = jax.ShapeDtypeStruct((), jnp.float32)
        jax.eval_shape(lambda h: fire(h, self.surrogate, self.alpha), scalar)
        jax.eval_shape(lambda s: masks.binary_mask(s, self.estimator), scalar)


class Emission(flax.struct.PyTreeNode):
    """What a layer emits, yet to be computed: a function without arguments, and a pytree.

    Attributes:
      current: [B, T, ...] or [B, 1, ...], or a function without arguments that returns it.
      score: [T] of the time steps.
      learned_tau: time constant for kind "plif", else None.
      neuron: a `NeuronConfig`.
      threshold: firing threshold, > 0.
      then: a function of [B * T, ...] applied to the spikes; None for none.
      price: of a spike in the objective, a scalar (`spike_price`); None if it is free.
    """

    current: jax.Array
    score: jax.Array
    learned_tau: jax.Array | None
    neuron: NeuronConfig = flax.struct.field(pytree_node=False)
    threshold: float = flax.struct.field(pytree_node=False)
    then: object = flax.struct.field(pytree_node=False, default=None)
    price: jax.Array | None = None

    def spikes(self):
        """Returns the spikes filtered by the mask, [B, T, ...]; max(current, 0) for "relu"."""
        current, T = value(self.current), len(self.score)
        current = jnp.broadcast_to(current, (current.shape[0], T, *current.shape[2:]))
        outputs = nn.relu(current) if self.neuron.kind == "relu" else self._fired(current)
        return masks.mask_spikes(outputs, self.score, self.neuron.estimator, axis=1)

    def __call__(self):
        """Returns the spikes, or what `then` makes of them; each at its price, if there is one."""
        y = spikes = self.spikes()
        if self.then is not None:
            y = self.then(spikes.reshape(-1, *spikes.shape[2:]))
            y = y.reshape(*spikes.shape[:2], *y.shape[1:])
        return y if self.price is None else spike_price.charge(y, self.price)

    def _fired(self, current):
        neuron = self.neuron
        return lif_scan(
            current,
            {"if": None, "lif": neuron.tau, "plif": self.learned_tau}[neuron.kind],
            self.threshold,
            neuron.reset,
            neuron.surrogate,
            alpha=neuron.alpha,
            detach_reset=neuron.detach_reset,
            axis=1,
        )


class LIF(nn.Module):
    """A spiking layer that owns one trainable score per time step.

    Takes a current [B, T, ...] and returns spikes [B, T, ...]: time is the second axis, so that
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
    neuron: NeuronConfig = NeuronConfig()

    def __call__(self, current):  # B T ...
        """Returns the spikes [B, T, ...] that the layer emits for a current [B, T, ...]."""
        return compute(self.deferred(current, current.shape[1]))

    @nn.compact
    def deferred(self, current, time_steps, then=None):  # B T ...
        """The spikes as a function without arguments, a pytree; of use in `recompute`.

        Args:
          current: [B, T, ...], or a function without arguments that returns it (a pytree); with
            one time step it is the same at all.
          time_steps: T.
          then: a function of [B * T, ...] applied to the spikes; None for none.
        """
        score = self.param(masks.SCORE, lambda _: masks.initial_scores(time_steps))
        price = spike_price.price_of(self)
        emission = Emission(current, score, self._tau(), self.neuron, self.threshold, then, price)
        if recording(self):
            record(self, jnp.moveaxis(emission.spikes(), 1, 0))
        return emission

    def _tau(self):
        """The learned time constant 1 + exp(-w), which is > 1 for every w (Fang 2021), or None."""
        if self.neuron.kind != "plif":
            return None
        start = -jnp.log(jnp.float32(self.neuron.tau) - 1)
        w = self.param("tau_logit", lambda _: start)
        return 1 + jnp.exp(-w)
