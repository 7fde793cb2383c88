"""`Signal`: what one layer hands to the next.

Values exist at K of the T time steps. In training and evaluation these are all of them; with a
fixed schedule they are those that have an effect, and at all remaining steps the signal is a
constant that the layers which read it know (zero for spikes). A static image is the same at every
step and has K = 1. Values may be yet to be computed: a normalisation, a neuron or a pooling is
computed where it is read, and again in the backward pass, which keeps the result of the linear map
before them alone.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from snnvit_jax.signals.plan import Plan
from snnvit_jax.signals.trace import Tracer
from snnvit_jax.time_steps import spike_price
from snnvit_jax.xla import kernels
from snnvit_jax.xla.rematerialisation import (
    deferred,
    frozen,
    is_pointwise,
    materialise,
    pointwise,
    rematerialise,
    source,
    value,
)

_static = functools.partial(flax.struct.field, pytree_node=False)


class Signal(flax.struct.PyTreeNode):
    """Values [B, K, ...] at K time steps out of T.

    Attributes:
      pending: the values, or how to compute them.
      price: that the objective charges for each value when it is read; None for nothing.
      steps: the K time steps, ascending; all T for a static signal.
      time_steps: T.
      static: whether the values, K = 1, are those of every step.
      plan: the `Plan` of a fixed schedule; None in training and evaluation.
      tracer: notes who reads the signal; None for nobody.
      node: its number there.
    """

    pending: Any
    price: Any = None
    steps: tuple[int, ...] = _static(default=())
    time_steps: int = _static(default=1)
    static: bool = _static(default=False)
    plan: Plan | None = _static(default=None)
    tracer: Tracer | None = _static(default=None)
    node: int | None = _static(default=None)

    @classmethod
    def of(cls, values, time_steps=None, plan=None, tracer=None):
        """Returns the signal of an array.

        Args:
          values: [B, T, ...]; or [B, 1, ...] with `time_steps`, the same at every step.
          time_steps: T of a static signal; None takes that of the values.
          plan: a `Plan`, or None.
          tracer: a `Tracer`, or None.
        """
        T = values.shape[1] if time_steps is None else time_steps
        static = time_steps is not None and values.shape[1] == 1
        signal = cls(values, None, tuple(range(T)), T, static, plan, tracer)
        return signal.trace("image", (), ())

    # Reading it.

    @property
    def values(self):
        """The values, [B, K, ...]."""
        return value(self._charged)

    @property
    def shape(self):
        """(B, K, ...) of the values, without computing them."""
        if is_pointwise(self.pending):
            return source(self.pending).shape
        return jax.eval_shape(value, self.pending).shape

    @property
    def dtype(self):
        """That of the values, without computing them."""
        return jax.eval_shape(value, self.pending).dtype

    @property
    def features(self):
        """Number of channels."""
        return self.shape[-1]

    @property
    def _charged(self):
        if self.price is None:
            return self.pending
        return deferred(spike_price.charge, self.pending, self.price)

    def keep(self):
        """Returns the signal with its values computed, for a signal that is read more than once.

        For the backward pass only what they are made of is kept.
        """
        pending = self._charged
        return self.replace(
            pending=materialise(pending) if callable(pending) else pending, price=None
        )

    # Making another one of it.

    def then(self, function, *operands):
        """Returns the signal of a function of the values that is cheap to compute again.

        What the values cost is charged on them, not on what the function makes of them.

        Args:
          function: pure, (values [B, K, ...], *operands) -> [B, K, ...]; may not close over
            anything traced.
          *operands: arrays.
        """
        return self.replace(pending=deferred(function, self._charged, *operands), price=None)

    def biased(self, bias):
        """Returns the signal with a bias added.

        Args:
          bias: [C].
        """
        return self.then(_plus, bias)

    def with_fixed_bias(self):
        """Returns the signal without a gradient for the bias that was added last, if one was."""
        return self.replace(pending=frozen(self.pending, _plus))

    def through(self, function, *weights):
        """Returns the signal of a product with weights, whose result is kept.

        Args:
          function: pure, (values [B, K, ...], *weights) -> [B, K, ...].
          *weights: arrays.
        """
        pending = self._charged
        if callable(pending):
            result = rematerialise(_Read(function), pending, *weights)
        else:
            result = function(pending, *weights)
        return self.replace(pending=result, price=None)

    def map(self, function):
        """Returns the signal of a function of images that moves or selects values: pool, reshape.

        A price stays one of each value: that of spikes is charged on what is left of them.

        Args:
          function: pure, [N, ..., C] -> [N, ..., C], that leaves a channel's constant as it is.
        """
        run = getattr(self.pending, "func", None)
        if kernels.steps_apart() and hasattr(run, "followed_by"):
            pending = Partial(run.followed_by(function), *self.pending.args)
        else:
            pending = deferred(OfImages(function), self.pending)
        result = self.replace(pending=pending)
        return result.trace("map", (), (self,), function=OfImages(function))

    def tokens(self):
        """Returns the signal with space as one axis: [B, K, H, W, C] -> [B, K, H * W, C]."""
        return self.map(flatten_space)

    def images(self, sides):
        """Returns the signal with space as two axes: [B, K, H * W, C] -> [B, K, H, W, C].

        Args:
          sides: (H, W).
        """
        return self.map(_UnflattenSpace(tuple(sides)))

    def emit(self, run, *operands, price):
        """Returns what neurons emit for this current: values at all T steps.

        Args:
          run: (values [B, K, ...] or how to compute them, *operands) -> [B, T, ...].
          *operands: pytrees of arrays.
          price: of each value, or None.
        """
        pending = Partial(run, self._charged, *operands)
        return self.replace(pending=pending, static=False, price=price)

    def __add__(self, other):
        """The sum of two signals, wherever either of them is."""
        a, b = self.keep(), other.keep()
        if a.plan is None:
            result = a.replace(pending=a.values + b.values, static=a.static and b.static)
        else:
            result = _planned_sum(a, b)
        return result.trace("sum", (), (self, other))

    def __mul__(self, factor):
        """The signal times a number that is not learned."""
        result = self.then(_times, jnp.asarray(float(factor)))  # float64 where there is float64
        return result.trace("scale", (), (self,), factor=float(factor))

    # With a fixed schedule.

    def active(self, step):
        """Returns whether there are values at a step."""
        return step in self.steps and self.shape[1] > 0

    def index(self, step):
        """Returns where the values of an active step lie on their second axis."""
        return 0 if self.static else self.steps.index(step)

    def restricted(self, steps):
        """Returns the signal without its values at other steps than these.

        Args:
          steps: time steps.
        """
        if self.static and steps:
            return self
        kept = tuple(t for t in self.steps if t in steps)
        if kept == self.steps and not self.static:
            return self
        if kept == self.steps[: len(kept)]:
            values = self.values[:, : len(kept)]
        else:
            values = self.values[:, [self.steps.index(t) for t in kept]]
        return self.replace(pending=values, price=None, static=False, steps=kept)

    def wanted(self, path):
        """Returns the signal at the steps at which a layer reads it; whole without a plan.

        Args:
          path: of the layer's module.
        """
        return self if self.plan is None else self.restricted(self.plan.wanted(path))

    def silent(self, shape=None):
        """Returns a signal without any step.

        Args:
          shape: of one time step of one example; None for that of this signal.
        """
        B, _, *rest = self.shape
        empty = jnp.zeros((B, 0, *(rest if shape is None else shape)), self.plan.dtype)
        return self.replace(pending=empty, price=None, static=False, steps=())

    def at_steps_only(self, values, steps):
        """Returns a signal of other values at other steps.

        Args:
          values: [B, K, ...].
          steps: K time steps.
        """
        return self.replace(pending=values, price=None, static=False, steps=tuple(steps))

    def spread(self):
        """Returns a static signal as one with values at each step."""
        if not self.static:
            return self
        B, _, *rest = self.shape
        values = jnp.broadcast_to(self.values, (B, self.time_steps, *rest))
        return self.at_steps_only(values, range(self.time_steps))

    def trace(self, operation, path, inputs, **details):
        """Returns the signal, noted as the result of an operation if anybody traces it.

        Args:
          operation: see `trace.Node`.
          path: of the module that computed it.
          inputs: the signals it was computed from.
          **details: what else is to be known, see `trace.Node`.
        """
        if self.tracer is None:
            return self
        numbers = [x.node for x in inputs]
        return self.replace(node=self.tracer.add(operation, path, numbers, self.shape[2:], details))


@dataclasses.dataclass(frozen=True)
class _Read:
    """A function of a value that may be deferred."""

    function: Callable

    def __call__(self, pending, *weights):
        return self.function(value(pending), *weights)


@dataclasses.dataclass(frozen=True)
class OfImages:
    """A function of images [N, ...] applied to every time step of values [B, K, ...].

    Because the batch comes first, folding the two axes neither moves data nor makes a sharded batch
    gather.

    Attributes:
      function: ([N, ...], *weights) -> [N, ...].
    """

    function: Callable

    def __call__(self, values, *weights):
        """Returns [B, K, ...] of values [B, K, ...]."""
        B, K, *image = values.shape
        if not K:  # only shapes are left
            one = jax.ShapeDtypeStruct((1, *image), values.dtype)
            y = jax.eval_shape(self.function, one, *weights)
            return jnp.zeros((B, 0, *y.shape[1:]), y.dtype)
        y = self.function(values.reshape(B * K, *image), *weights)
        return y.reshape(B, K, *y.shape[1:])


def flatten_space(images):
    """Returns [N, H, W, C] as [N, H * W, C].

    Args:
      images: [N, ..., C].
    """
    return images.reshape(images.shape[0], -1, images.shape[-1])


@dataclasses.dataclass(frozen=True)
class _UnflattenSpace:
    """The inverse of `flatten_space`, for images of these sides."""

    sides: tuple[int, int]

    def __call__(self, tokens):
        return tokens.reshape(tokens.shape[0], *self.sides, tokens.shape[-1])


@pointwise
def _plus(values, bias):
    return values + bias


@pointwise
def _times(values, factor):
    return values * factor.astype(values.dtype)


def _planned_sum(a, b):
    if a.static and b.static:
        return a.replace(pending=a.values + b.values)
    a, b = a.spread(), b.spread()
    if not (a.steps and b.steps):
        return a if a.steps else b
    if a.steps == b.steps:
        return a.replace(pending=a.values + b.values)
    steps = tuple(sorted({*a.steps, *b.steps}))
    present = [[x.values[:, x.index(t)] for x in (a, b) if t in x.steps] for t in steps]
    return a.at_steps_only(jnp.stack([sum(terms[1:], terms[0]) for terms in present], 1), steps)
