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
import jax
import jax.numpy as jnp

from snnvit_jax import timesteps
from snnvit_jax.recording import record
from snnvit_jax.surrogates import fire

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
):
    """Runs leaky-integrate-and-fire neurons over all time steps, from a membrane at rest (0).

    The scan is fully unrolled: XLA then compiles forward and backward into one fusion each, which
    reads the current once and keeps the membrane in registers.

    Args:
      current: input current [T, ...], T >= 1, floating point; every element beyond the first axis
        is a neuron of its own.
      tau: membrane time constant in time steps, >= 1; None integrates without leak.
      threshold: firing threshold, > 0.
      reset: "hard" or "soft".
      surrogate: shape of the surrogate gradient, a key of `surrogates.SURROGATES`.
      alpha: its sharpness; None takes the shape's default.
      detach_reset: no gradient flows through the spike in the reset.
      return_membrane: also return the potential before reset.

    Returns:
      Spikes [T, ...] in {0, 1} in the current's dtype; with `return_membrane`, (spikes, h).

    Raises:
      ValueError: for a current without time steps or not floating point, an unknown reset or
        surrogate, tau < 1, or a threshold that is not positive.
      TypeError: if current is no array.
    """
    _check_scan(current, tau, threshold, reset)
    tau = tau if tau is None else jnp.asarray(tau, current.dtype)
    threshold = jnp.asarray(threshold, current.dtype)

    def step(membrane, x):
        membrane, spike, charged = lif_step(
            membrane, x, tau, threshold, reset, surrogate, alpha=alpha, detach_reset=detach_reset
        )
        return membrane, (spike, charged) if return_membrane else spike

    return jax.lax.scan(step, jnp.zeros_like(current[0]), current, unroll=current.shape[0])[1]


def _check_scan(current, tau, threshold, reset):
    if not hasattr(current, "dtype"):
        raise TypeError(f"current must be an array [T, ...], got {type(current).__name__}")
    shape, dtype = jnp.shape(current), jnp.result_type(current)
    if not shape or shape[0] < 1:
        raise ValueError(f"current needs at least one time step on its first axis, got {shape=}")
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
      estimator: straight-through estimator of the time-step mask (`timesteps.ESTIMATORS`).
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
        jax.eval_shape(lambda s: timesteps.binary_mask(s, self.estimator), scalar)


class LIF(nn.Module):
    """A spiking layer that owns one trainable score per time step.

    Takes a current [B, T, ...] and returns spikes [B, T, ...]: time is the second axis, so that
    folding it into the batch for a convolution moves no data. The time-step mask filters what is
    emitted; the reset sees the unfiltered spikes, so a mask never changes the layer's dynamics.
    Records the emitted spikes under the layer's name when the collection "spikes" is mutable.

    Attributes:
      threshold: firing threshold of this layer.
      neuron: what it shares with the rest of the model.
    """

    threshold: float = 1.0
    neuron: NeuronConfig = NeuronConfig()

    @nn.compact
    def __call__(self, current):  # B T ...
        """Returns the spikes [B, T, ...] that the layer emits for a current [B, T, ...]."""
        T = current.shape[1]
        score = self.param(timesteps.SCORE, lambda _: timesteps.initial_scores(T))
        outputs = self._outputs(jnp.moveaxis(current, 1, 0))  # T B ...
        emitted = timesteps.mask_spikes(outputs, score, self.neuron.estimator)
        record(self, emitted)
        return jnp.moveaxis(emitted, 0, 1)

    def _outputs(self, current):
        """What the layer would emit without its mask, [T, B, ...]."""
        neuron = self.neuron
        if neuron.kind == "relu":
            return nn.relu(current)
        return lif_scan(
            current,
            self._tau(),
            self.threshold,
            neuron.reset,
            neuron.surrogate,
            alpha=neuron.alpha,
            detach_reset=neuron.detach_reset,
        )

    def _tau(self):
        """Time constant: fixed, absent, or 1 + exp(-w), which is > 1 for every w (Fang 2021)."""
        if self.neuron.kind == "if":
            return None
        if self.neuron.kind == "lif":
            return self.neuron.tau
        start = -jnp.log(jnp.float32(self.neuron.tau) - 1)
        w = self.param("tau_logit", lambda _: start)
        return 1 + jnp.exp(-w)
