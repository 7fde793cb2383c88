"""The kinds of neurons: one class each, and the table by which a configuration names them."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from snnvit_jax.common import values
from snnvit_jax.common.nearest import did_you_mean
from snnvit_jax.neurons.dynamics import check_dynamics, leaky_charge
from snnvit_jax.neurons.neuron import SAFE_CURRENT, MembraneNeuron, Neuron, Update
from snnvit_jax.neurons.surrogates import fire
from snnvit_jax.neurons.without_spikes import QuantizedNeuron, ReLUNeuron, check_levels
from snnvit_jax.xla.reductions import spread

# With a shorter time constant a membrane far below rest comes back within one step, so that its
# rounding, that of a large number, may carry it beyond the current (bfloat16: 0.4 percent of it).
SAFE_TAU = 1.02


@dataclasses.dataclass(frozen=True)
class IFNeuron(MembraneNeuron):
    """Integrates without leak: h = v + x."""

    kind: ClassVar[str] = "if"

    def charge(self, membrane, current, parameters):
        """See `MembraneNeuron.charge`."""
        return leaky_charge(membrane, current, None)

    def may_emit(self, arriving, constant, threshold, parameters):
        """See `Neuron.may_emit`: a current that is not positive keeps it below the threshold."""
        return _may_fire(arriving, constant, 0.0, self.reset)

    def update(self, time_steps):
        """See `Neuron.update`."""
        return Update(accumulates=1)


@dataclasses.dataclass(frozen=True)
class LIFNeuron(MembraneNeuron):
    """Leaky: h = v + (x - v) / tau, with the same fixed tau everywhere.

    Attributes:
      tau: membrane time constant in time steps, >= 1; None for no leak.
    """

    kind: ClassVar[str] = "lif"
    tau: float | None = 2.0

    def __post_init__(self):
        super().__post_init__()
        check_dynamics(self.tau)

    def charge(self, membrane, current, parameters):
        """See `MembraneNeuron.charge`."""
        tau = self.tau
        return leaky_charge(membrane, current, tau and jnp.asarray(tau, current.dtype))

    def may_emit(self, arriving, constant, threshold, parameters):
        """See `Neuron.may_emit`: its potential moves towards a constant current, not beyond."""
        if self.tau is None:
            return _may_fire(arriving, constant, 0.0, self.reset)
        return _leaky_may_fire(arriving, constant, threshold, self.reset, self.tau)

    def update(self, time_steps):
        """See `Neuron.update`: a leak multiplies."""
        return Update(accumulates=1) if self.tau is None else Update(macs=1)


@dataclasses.dataclass(frozen=True)
class PLIFNeuron(MembraneNeuron):
    """Leaky, with a time constant that each layer learns: tau = 1 + exp(-w) (Fang et al., 2021).

    Attributes:
      tau: that it starts with, > 1.
    """

    kind: ClassVar[str] = "plif"
    tau: float = 2.0

    def __post_init__(self):
        super().__post_init__()
        values.number(above=1).check("tau", values.scalar(self.tau))

    def parameters(self, time_steps, threshold):
        """See `Neuron.parameters`: w, a scalar."""
        return {"tau_logit": lambda key: -jnp.log(jnp.float32(self.tau) - 1)}

    def ready(self, parameters):
        """See `MembraneNeuron.ready`: tau, computed in float32."""
        return {"tau": 1 + jnp.exp(-jnp.asarray(parameters["tau_logit"]))}

    def charge(self, membrane, current, parameters):
        """See `MembraneNeuron.charge`."""
        return leaky_charge(membrane, current, spread(parameters["tau"], current))

    def may_emit(self, arriving, constant, threshold, parameters):
        """See `LIFNeuron.may_emit`."""
        tau = 1 + np.exp(-np.float64(parameters["tau_logit"]))
        return _leaky_may_fire(arriving, constant, threshold, self.reset, tau)

    def update(self, time_steps):
        """See `Neuron.update`."""
        return Update(macs=1)


@dataclasses.dataclass(frozen=True)
class ParallelNeuron(Neuron):
    """The parallel spiking neuron: h = W x over all time steps at once, fires where h + b >= 0.

    W [T, T] and b [T] are learned, one of each for a layer; there is no reset, and a later current
    may make an earlier step fire (Fang et al., "Parallel Spiking Neurons with High Efficiency and
    Ability to Learn Long-term Dependencies", NeurIPS 2023, equations 8 and 9).
    """

    kind: ClassVar[str] = "psn"
    causal: ClassVar[bool] = False

    def parameters(self, time_steps, threshold):
        """See `Neuron.parameters`: W uniform in +-1 / sqrt(T), b the negative threshold."""
        bound = 1 / math.sqrt(time_steps)
        shape = (time_steps, time_steps)
        return {
            "time_kernel": lambda key: jax.random.uniform(key, shape, jnp.float32, -bound, bound),
            "time_bias": lambda key: jnp.full((time_steps,), -threshold, jnp.float32),
        }

    def run(self, current, threshold, parameters, axis=0):
        """See `Neuron.run`."""
        x = jnp.moveaxis(current, axis, 0)
        return self._fired(x, range(len(x)), parameters, axis)

    def run_at(self, current_at, steps, shape, time_steps, threshold, parameters):
        """See `Neuron.run_at`: a row of W for each step that is wanted."""
        x = [jnp.broadcast_to(current_at(t), shape) for t in range(time_steps)]
        return self._fired(x, steps, parameters, axis=1)

    def _fired(self, x, steps, parameters, axis):
        kernel, bias = (jnp.asarray(parameters[name]) for name in ("time_kernel", "time_bias"))
        # Written out: T is small, and the potential must not depend on a product's precision.
        h = [
            sum(spread(kernel[t, s], x[s]) * x[s] for s in range(len(x))) + spread(bias[t], x[t])
            for t in steps
        ]
        return jnp.moveaxis(fire(jnp.stack(h), self.surrogate, self.alpha), 0, axis)

    def steps_updated(self, wanted):
        """See `Neuron.steps_updated`: no potential goes from step to step."""
        return wanted

    def update(self, time_steps):
        """See `Neuron.update`: a row of W."""
        return Update(macs=time_steps)


def _may_fire(arriving, constant, limit, reset):
    """Where a neuron may fire whose potential stays below its threshold under the constant.

    After a hard reset the potential lies below the threshold; after a soft one it may still be
    above, so that only the steps before the first input are known.
    """
    if np.max(constant) > limit:
        return np.ones_like(arriving)
    return arriving if reset == "hard" else np.logical_or.accumulate(arriving)


def _leaky_may_fire(arriving, constant, threshold, reset, tau):
    """The same of a leaky neuron, whose potential moves towards a constant current."""
    may_fire = _may_fire(arriving, constant, SAFE_CURRENT * threshold, reset)
    return may_fire | (np.logical_or.accumulate(arriving) if tau < SAFE_TAU else False)


# name in a configuration -> class
KINDS = {
    cls.kind: cls
    for cls in (LIFNeuron, IFNeuron, PLIFNeuron, ReLUNeuron, QuantizedNeuron, ParallelNeuron)
}
# What a configuration may say of any kind; a kind takes what it knows.
_SETTINGS = ("tau", "reset", "surrogate", "alpha", "detach_reset", "estimator", "levels")

_INHERITED = ("kind", *_SETTINGS)  # by a mapping from the neuron that was published


def register_neuron(cls):
    """Adds a kind of neuron, so that `model.neuron.kind` of a configuration finds it.

    Args:
      cls: a frozen dataclass derived from `Neuron`, with a class attribute `kind`. Fields that
        other kinds have too ("tau", "levels", ...) are set by the same keys of a configuration.

    Returns:
      The class, so that this can be a decorator.

    Raises:
      ValueError: if it is no subclass of `Neuron`, has no kind, or another class has it.
    """
    if not (isinstance(cls, type) and issubclass(cls, Neuron)):
        raise ValueError(f"register_neuron takes a class derived from Neuron, got {cls!r}")
    kind = getattr(cls, "kind", None)
    if not kind or KINDS.get(kind, cls) is not cls:
        raise ValueError(f"{cls.__name__} needs a class attribute kind of its own, got {kind=}")
    KINDS[kind] = cls
    return cls


def create_neuron(kind="lif", **settings):
    """Returns a neuron by the name of its kind.

    Args:
      kind: a key of `KINDS`.
      **settings: fields of its class; "tau", "reset", "surrogate", "alpha", "detach_reset",
        "estimator" and "levels" may be given for every kind and are left out where a kind has no
        use for them.

    Raises:
      ValueError: for an unknown kind or setting, or a value that does not fit, each by name.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        hint = did_you_mean(kind, KINDS)
        raise ValueError(f"unknown neuron {kind=}{hint}; use one of {', '.join(KINDS)}")
    fields = [field.name for field in dataclasses.fields(KINDS[kind])]
    unknown = sorted(set(settings) - set(fields) - set(_SETTINGS))
    if unknown:
        known = ", ".join(("kind", *dict.fromkeys((*_SETTINGS, *fields))))
        raise ValueError(f"unknown neuron settings {unknown}; use some of {known}")
    # A setting that is of no use to this kind is checked all the same.
    given = {key: settings[key] for key in ("tau", "reset", "detach_reset") if key in settings}
    check_dynamics(**given)
    if "levels" in settings:
        check_levels(settings["levels"])
    return KINDS[kind](**{name: settings[name] for name in fields if name in settings})


def as_neuron(neuron, otherwise=None):
    """Returns a neuron given as such or as a mapping of settings.

    Args:
      neuron: a `Neuron`, or a mapping with a "kind" and its settings. None there is no setting,
        unless nothing but "tau" (no leak) and "alpha" is None.
      otherwise: a `Neuron` whose settings count where the mapping has none; None for the defaults.

    Raises:
      ValueError: for anything else, or settings that do not fit.
    """
    if isinstance(neuron, Neuron):
        return neuron
    if not hasattr(neuron, "items"):
        known = ", ".join(("kind", *_SETTINGS))
        raise ValueError(f"{neuron=} must be a Neuron or a mapping of settings: {known}")
    given = {key: value for key, value in neuron.items() if value is not None}
    if set(neuron) - set(given) <= {"tau", "alpha"}:
        given = dict(neuron)
    if otherwise is not None and getattr(otherwise, "kind", None) in KINDS:
        known = {key: value for key, value in describe(otherwise).items() if key in _INHERITED}
        given = known | given
    return create_neuron(**given)


def describe(neuron):
    """Returns {"kind": ..., setting: value} of a neuron, plain values.

    Args:
      neuron: a `Neuron`.
    """
    kind = getattr(neuron, "kind", type(neuron).__name__)
    return {"kind": kind, **dataclasses.asdict(neuron)}
