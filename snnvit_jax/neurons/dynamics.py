"""Membrane dynamics: `lif_step` and `lif_scan`, pure functions.

One time step, with current x, membrane potential v and threshold θ:

    h[t] = v[t-1] + (x[t] - v[t-1]) / tau      charge  (tau=None: h = v + x, no leak)
    o[t] = 1 if h[t] >= θ else 0               fire    (backward: surrogate gradient)
    v[t] = h[t] * (1 - o[t])                   reset   (soft: h - θ * o)

This is SpikingJelly's LIFNode with decay_input=True and v_reset=0, which the published spiking
transformers use (Fang et al., "SpikingJelly", Science Advances 2023).
"""

import jax
import jax.numpy as jnp

from snnvit_jax.common import values
from snnvit_jax.neurons.surrogates import check_surrogate, fire
from snnvit_jax.xla.rematerialisation import write_out
from snnvit_jax.xla.scan import scan_steps

RESETS = {
    "hard": lambda h, o, threshold: h * (1 - o),
    "soft": lambda h, o, threshold: h - threshold * o,
}


def leaky_charge(membrane, current, tau):
    """Returns h[t] = v[t-1] + (x[t] - v[t-1]) / tau; v[t-1] + x[t] without leak.

    Args:
      membrane: v[t-1], any shape.
      current: x[t], shaped like it.
      tau: time constant in time steps, >= 1, a number or a scalar array; None for no leak.
    """
    return membrane + (current if tau is None else (current - membrane) / tau)


def fire_and_reset(charged, threshold, reset, surrogate, alpha=None, detach_reset=True):
    """Returns (v[t], o[t], h[t]) of a potential h[t] before its reset.

    Args:
      charged: h[t], any shape.
      threshold: θ > 0; a potential exactly at it fires.
      reset: a key of `RESETS`.
      surrogate: a key of `surrogates.SURROGATES`.
      alpha: its sharpness; None for the shape's default.
      detach_reset: no gradient flows through the spike in the reset.
    """
    charged = write_out(charged)
    spike = fire(charged - threshold, surrogate, alpha)
    reset_spike = jax.lax.stop_gradient(spike) if detach_reset else spike
    return RESETS[reset](charged, reset_spike, threshold), spike, charged


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
    charged = leaky_charge(membrane, current, tau)
    return fire_and_reset(charged, threshold, reset, surrogate, alpha, detach_reset)


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

    A `jax.lax.scan` over time (`xla.scan.scan_steps`).

    Args:
      current: input current [T, ...], T >= 1, floating point; every element beyond the axis of time
        is a neuron of its own.
      tau: membrane time constant in time steps, >= 1, a number or a traced scalar; None integrates
        without leak.
      threshold: firing threshold, > 0, a number or a traced scalar.
      reset: "hard" or "soft".
      surrogate: shape of the surrogate gradient, a key of `surrogates.SURROGATES`.
      alpha: its sharpness, a plain number and never a traced one; None takes the shape's default.
      detach_reset: no gradient flows through the spike in the reset.
      return_membrane: also return the potential before reset.
      axis: of time, >= 0.

    Returns:
      Spikes in {0, 1}, shaped and typed like the current; with `return_membrane`, (spikes, h).

    Raises:
      ValueError: for a current without time steps or not floating point, or an argument that does
        not fit, by name.
      TypeError: if current is no array.
    """
    check_current(current, axis)
    check_dynamics(tau, threshold, reset, detach_reset)
    check_surrogate(surrogate, alpha)
    current = jnp.asarray(current)
    tau = tau if tau is None else jnp.asarray(tau, current.dtype)
    threshold = jnp.asarray(threshold, current.dtype)

    def step(membrane, x):
        membrane, spike, charged = lif_step(
            membrane, x, tau, threshold, reset, surrogate, alpha=alpha, detach_reset=detach_reset
        )
        return membrane, (spike, charged) if return_membrane else spike

    return scan_steps(step, resting(current, axis), current, axis)[1]


def resting(current, axis):
    """Returns the membrane potential before the first step: zeros of one step's shape.

    Args:
      current: [..., T, ...].
      axis: of time.
    """
    shape = (*current.shape[:axis], *current.shape[axis + 1 :])
    return jnp.zeros(shape, current.dtype)


def check_current(current, axis):
    """Raises an error for a current that no neuron can take.

    Args:
      current: to be [..., T, ...], floating point, with T >= 1 on `axis`.
      axis: of time, >= 0.

    Raises:
      TypeError: if it is no array.
      ValueError: printing its shape or dtype.
    """
    if not hasattr(current, "dtype"):
        raise TypeError(f"current must be an array [T, ...], got {type(current).__name__}")
    shape, dtype = jnp.shape(current), jnp.result_type(current)
    values.whole(0).check("axis", axis)
    if not axis < len(shape) or shape[axis] < 1:
        raise ValueError(f"current needs at least one time step on its axis {axis}, got {shape=}")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"current must be floating point, got {dtype}")


def check_dynamics(tau=None, threshold=1.0, reset="hard", detach_reset=True):
    """Raises ValueError, by name, for what no membrane can follow.

    Args:
      tau: to be a number of at least 1, None, or a traced scalar, whose value is not checked.
      threshold: to be a number above 0, or a traced scalar, whose value is not checked.
      reset: to be a key of `RESETS`.
      detach_reset: to be a truth value.
    """
    values.one_of(RESETS).check("reset", reset)
    values.flag().check("detach_reset", values.plain(detach_reset))
    _check_scalar("tau", tau, values.optional(values.number(1)))
    _check_scalar("threshold", threshold, values.number(above=0))


def _check_scalar(name, value, rule):
    if not isinstance(value, jax.core.Tracer):
        rule.check(name, values.scalar(value))
    elif value.shape:
        raise ValueError(f"{name} of shape {value.shape} must be a scalar")
