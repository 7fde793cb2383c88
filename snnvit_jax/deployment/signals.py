"""Signals of which it is known, before anything runs, at which time steps they are silent.

Only the other steps exist: a linear map, a sum or an attention product is computed for them alone.
A neuron sees its bias at the steps at which nothing arrives.
"""

import dataclasses

import jax
import jax.numpy as jnp

from snnvit_jax.layers import layers
from snnvit_jax.neurons import lif_step


@dataclasses.dataclass(frozen=True)
class Signal:
    """What a layer emits: values at its active time steps, zero at all others.

    Attributes:
      values: [B, K, ...] at the K active steps in order of time; K may be 0.
      steps: the active steps, ascending.
    """

    values: jax.Array
    steps: tuple[int, ...]

    def at(self, step):
        """Returns the values [B, ...] at an active step."""
        return self.values[:, self.steps.index(step)]

    def until(self, last):
        """Returns the signal without the steps after `last`."""
        steps = tuple(step for step in self.steps if step <= last)
        return Signal(self.values[:, : len(steps)], steps)

    def map(self, function):
        """Returns the signal [B, K, ...] -> [B, K, ...] of a function that maps zero to zero."""
        return Signal(function(self.values), self.steps)


def silence(shape, dtype):
    """Returns a signal without any active step.

    Args:
      shape: [B, ...] of one step.
      dtype: of the values that it does not have.
    """
    return Signal(jnp.zeros((shape[0], 0, *shape[1:]), dtype), ())


def repeat(x, time_steps):
    """Returns the signal that is x at every time step.

    Args:
      x: [B, ...].
      time_steps: T.
    """
    values = jnp.broadcast_to(x[:, None], (x.shape[0], time_steps, *x.shape[1:]))
    return Signal(values, tuple(range(time_steps)))


def add(a, b):
    """Returns the sum of two signals, active where either is.

    Args:
      a: `Signal` [B, K, ...].
      b: `Signal` of the same shape, K apart.
    """
    if not (a.steps and b.steps):
        return a if a.steps else b
    if a.steps == b.steps:
        return Signal(a.values + b.values, a.steps)
    steps = tuple(sorted({*a.steps, *b.steps}))
    present = [[x.at(t) for x in (a, b) if t in x.steps] for t in steps]
    return Signal(jnp.stack([sum(terms[1:], terms[0]) for terms in present], 1), steps)


def attend(q, k, v, num_heads):
    """Returns the attention product (q kᵀ) v / 8 of three signals with the same active steps.

    Args:
      q: `Signal` [B, K, N, C] of spikes.
      k: the same.
      v: the same.
      num_heads: divides C.

    Returns:
      A `Signal` [B, K, N, C], in at least float32.
    """
    if not q.steps:
        return q
    wide = [x.values.astype(jnp.promote_types(x.values.dtype, jnp.float32)) for x in (q, k, v)]
    return Signal(layers.spiking_attention(*wide, num_heads), q.steps)


def fire(drive, bias, steps, *, tau, threshold, reset, dtype):
    """Runs integrate-and-fire neurons until their last active step.

    The current is `bias` plus what `drive` adds at its active steps. Until the first of them a
    layer's neurons differ only by channel, and are computed once for each.

    Args:
      drive: `Signal` [B, K, ..., C].
      bias: [C] or a scalar, at least float32: the precision of the membrane potential.
      steps: the time steps whose spikes are wanted, ascending, at least one.
      tau: membrane time constant in time steps, a number or scalar array; None for no leak.
      threshold: firing threshold.
      reset: "hard" or "soft".
      dtype: of the spikes.

    Returns:
      A `Signal` of spikes [B, len(steps), ..., C].
    """
    shape = (drive.values.shape[0], *drive.values.shape[2:])
    tau = tau if tau is None else jnp.asarray(tau, bias.dtype)
    threshold = jnp.asarray(threshold, bias.dtype)
    membrane, emitted = jnp.zeros_like(bias), []
    for t in range(steps[-1] + 1):
        current = drive.at(t) + bias if t in drive.steps else bias
        membrane, spikes, _ = lif_step(membrane, current, tau, threshold, reset)
        if t in steps:
            emitted.append(jnp.broadcast_to(spikes.astype(dtype), shape))
    return Signal(jnp.stack(emitted, 1), tuple(steps))


def mean(x, time_steps):
    """Returns the mean over all T time steps and all tokens, [B, C] float32.

    Args:
      x: `Signal` [B, K, N, C].
      time_steps: T.
    """
    total = jnp.sum(x.values.astype(jnp.float32), axis=(1, 2))
    return total / (time_steps * x.values.shape[2])
