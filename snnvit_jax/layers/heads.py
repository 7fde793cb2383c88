"""Heads: channels in groups, as an axis of their own, and sums within them."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class SplitHeads:
    """Channels as heads, for `Signal.map`: [N, ..., C] -> [N, ..., heads, C / heads].

    Attributes:
      num_heads: divides C; channel c belongs to head c // (C / num_heads).
    """

    num_heads: int

    def __call__(self, x):
        """Returns [N, ..., heads, C / heads] of [N, ..., C]."""
        return x.reshape(*x.shape[:-1], self.num_heads, x.shape[-1] // self.num_heads)


@dataclasses.dataclass(frozen=True)
class Channels:
    """Some channels, for `Signal.map`: [N, ..., C] -> [N, ..., stop - start].

    Attributes:
      start: first of them.
      stop: the one behind the last.
    """

    start: int
    stop: int

    def __call__(self, x):
        """Returns [N, ..., stop - start] of [N, ..., C]."""
        return x[..., self.start : self.stop]


def merge_heads(x):
    """Returns [N, ..., heads, d] as [N, ..., heads * d], for `Signal.map`.

    Args:
      x: [N, ..., heads, d].
    """
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def as_heads(x):
    """Returns one value for each head, [N, ..., heads], as heads of one channel.

    Args:
      x: [N, ..., heads].
    """
    return x[..., None]


def sum_of_channels(x):
    """Returns the sum over the channels of each head, at least float32 inside.

    Args:
      x: [..., heads, d].
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.sum(x.astype(wide), axis=-1).astype(x.dtype)


class HeadSum(nn.Module):
    """The sum over each head's channels: how many of them spike (Zhou et al., arXiv 2403.16552).

    A layer without parameters, so that its additions can be counted.
    """

    @nn.compact
    def __call__(self, x):
        """Returns the signal [B, K, ..., heads] of a signal [B, K, ..., heads, d]."""
        x = x.wanted(self.path)
        result = x.then(sum_of_channels)
        return result.trace("map", self.path, (x,), function=sum_of_channels)
