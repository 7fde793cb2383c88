"""Numbers that multiply a signal and are known before a finished model runs, and firing rates."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from snnvit_jax.common.variables import RATES
from snnvit_jax.layers.normalisation import planned_affine

RATE_MOMENTUM = 0.999  # of running firing rates (Shi et al., CVPR 2024)


class Scale(nn.Module):
    """A signal times numbers that no image changes; deployment folds them into the map before it.

    They may be a function of running statistics or of parameters, one for each channel or for each
    group of them.
    """

    @nn.compact
    def __call__(self, x, function, *numbers):
        """Returns the signal [B, K, ...] times function(*numbers), which broadcasts to one step.

        Args:
          x: `Signal` [B, K, ...].
          function: pure, of arrays; may not close over anything traced.
          *numbers: variables of a module, as they are: nothing may be computed of them before.
        """
        if x.plan:
            return planned_affine(self, x)
        result = x.then(_Times(function), *numbers)
        return result.trace("scale", self.path, (x,), function=function, numbers=numbers)


@dataclasses.dataclass(frozen=True)
class _Times:
    function: object

    def __call__(self, values, *numbers):
        return values * self.function(*numbers).astype(values.dtype)


@dataclasses.dataclass(frozen=True)
class RateScale:
    """1 / sqrt(rate * count) of each head, for `Scale` (Shi et al., CVPR 2024).

    A sum over `count` values of which a share `rate` are spikes has a variance that grows with
    rate * count. A head that has not fired yet, rate 0, is scaled as if it always did: what it sums
    is zero as long as it is silent.

    Attributes:
      count: of values that are summed, >= 1.
      axes: how many axes follow that of the heads.
    """

    count: int
    axes: int = 1

    def __call__(self, rate):
        """Returns [heads, 1, ...] of rates [heads]; no gradient flows through it."""
        rate = jax.lax.stop_gradient(jnp.asarray(rate))
        factor = 1 / jnp.sqrt(jnp.where(rate > 0, rate, 1) * self.count)
        return factor.reshape(*rate.shape, *[1] * self.axes)


def running_rate(rate, values, axis):
    """Returns running firing rates after another batch.

        rate <- 0.999 rate + 0.001 r,    r = mean of the batch

    and r itself where no head has a rate yet.

    Args:
      rate: [heads], >= 0, so far; all zero before the first batch.
      values: spikes [B, T, ...].
      axis: of the heads.
    """
    others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
    values = jax.lax.stop_gradient(values)
    now = jnp.mean(values.astype(jnp.promote_types(values.dtype, rate.dtype)), others)
    now = now.astype(rate.dtype)
    before = jnp.where(jnp.any(rate != 0), rate, now)
    return RATE_MOMENTUM * before + (1 - RATE_MOMENTUM) * now


def update_firing_rate(module, name, spikes, axis, train):
    """Returns the running firing rate of each head, [heads], which a module keeps as a statistic.

    In training it takes in the batch first, so that a scale in training is a running average too.
    None under a plan, where it is part of the weights.

    Args:
      module: the bound Linen module that owns it.
      name: of the statistic, "firing_rate" or "firing_rate_NAME": by its beginning whoever takes
        weights knows that no value of it may be negative.
      spikes: `Signal` [B, T, ...], kept.
      axis: of the heads.
      train: whether the batch counts.

    Raises:
      ValueError: for a name that begins otherwise.
    """
    if not name.startswith(RATES):
        raise ValueError(f"{name=} of a running firing rate must begin with {RATES!r}")
    if spikes.plan:
        return None
    heads = spikes.shape[axis]
    rate = module.variable("batch_stats", name, jnp.zeros, (heads,), jnp.float32)
    if train and not module.is_initializing():
        rate.value = running_rate(rate.value, spikes.values, axis)
    return rate.value
