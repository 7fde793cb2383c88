"""`Neuron`: everything that the rest of the package needs to know of a kind of neuron.

The time-step mask, the price of spikes and the recording wrap a neuron (`neurons.lif`); deployment,
energy and early exit ask it what they need. A neuron of your own is a frozen dataclass derived from
`MembraneNeuron` (override `charge`) or from `Neuron` (override `run`).
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from snnvit_jax.common import values
from snnvit_jax.neurons.dynamics import (
    check_current,
    check_dynamics,
    fire_and_reset,
    resting,
)
from snnvit_jax.neurons.surrogates import check_surrogate, fire
from snnvit_jax.time_steps import masks
from snnvit_jax.xla.scan import scan_steps

# A current up to this part of the threshold (or of a level of it) makes no leaky neuron fire and
# reaches no level, rounding included: in bfloat16 current, threshold, quotient and product are each
# off by at most 0.2 percent, and the next number below 1 is 0.996.
SAFE_CURRENT = 0.99


@dataclasses.dataclass(frozen=True)
class Update:
    """What one time step costs a neuron.

    Attributes:
      macs: multiply-accumulates.
      accumulates: additions.
    """

    macs: int = 0
    accumulates: int = 0


@dataclasses.dataclass(frozen=True)
class Neuron:
    """What all neurons of a model share; the threshold is the layer's own.

    Attributes:
      surrogate: shape of the surrogate gradient, a key of `surrogates.SURROGATES`.
      alpha: its sharpness, > 0; None for the shape's default.
      estimator: straight-through estimator of the time-step mask, a key of `masks.ESTIMATORS`.
      causal: whether what it emits at a step depends on no later current.
      spiking: whether it emits nothing but 0 and 1.

    Raises:
      ValueError: naming the value that does not fit.
    """

    surrogate: str = "sigmoid"
    alpha: float | None = None
    estimator: str = "identity"

    causal: ClassVar[bool] = True
    spiking: ClassVar[bool] = True

    def __post_init__(self):
        check_surrogate(self.surrogate, self.alpha)
        values.one_of(masks.ESTIMATORS).check("estimator", self.estimator)
        # Traced, not computed: importing this must not start the devices, because several processes
        # have to find each other before.
        scalar = jax.ShapeDtypeStruct((), jnp.float32)
        jax.eval_shape(lambda h: fire(h, self.surrogate, self.alpha), scalar)
        jax.eval_shape(lambda s: masks.binary_mask(s, self.estimator), scalar)

    def parameters(self, time_steps, threshold):
        """Returns {name: initializer of a key} of what a layer learns besides its scores.

        Args:
          time_steps: T, >= 1.
          threshold: firing threshold of the layer, > 0.
        """
        return {}

    def run(self, current, threshold, parameters, axis=0):
        """Returns what is emitted at all time steps, shaped like the current, before the mask.

        Args:
          current: [..., T, ...], floating point.
          threshold: firing threshold, > 0.
          parameters: {name: array}, as `parameters` names them.
          axis: of time.
        """
        raise NotImplementedError(f"{type(self).__name__} must override run")

    def run_at(self, current_at, steps, shape, time_steps, threshold, parameters):
        """Returns what is emitted at some steps, [B, len(steps), ...], before the mask.

        Args:
          current_at: function of a step that returns its current, of `shape` or broadcasting to it
            where nothing arrives and only a constant flows.
          steps: those wanted, ascending, at least one.
          shape: [B, ...] of one step.
          time_steps: T.
          threshold: firing threshold, > 0.
          parameters: {name: array}.
        """
        last = steps[-1] + 1 if self.causal else time_steps
        currents = [jnp.broadcast_to(current_at(t), shape) for t in range(last)]
        return self.run(jnp.stack(currents, 1), threshold, parameters, axis=1)[:, list(steps)]

    def may_emit(self, arriving, constant, threshold, parameters):
        """Returns at which steps the layer may emit anything, bool [T]; True where in doubt.

        Args:
          arriving: bool [T], the steps at which some input may arrive.
          constant: NumPy array, the current at all other steps.
          threshold: firing threshold, > 0.
          parameters: {name: NumPy array}.
        """
        return np.ones_like(arriving)

    def steps_read(self, wanted):
        """Returns which steps of the current matter, bool [T].

        Args:
          wanted: bool [T], the steps at which an emission is needed.
        """
        if not self.causal:
            return np.full_like(wanted, wanted.any())
        return np.logical_or.accumulate(wanted[::-1])[::-1]

    def steps_updated(self, wanted):
        """Returns the steps at which its membrane potential is computed, bool [T].

        Args:
          wanted: bool [T], the steps at which an emission is needed.
        """
        return self.steps_read(wanted)

    def update(self, time_steps):
        """Returns the `Update` that one time step costs one neuron.

        Args:
          time_steps: T.
        """
        return Update()


@dataclasses.dataclass(frozen=True)
class MembraneNeuron(Neuron):
    """A neuron with a membrane potential: it charges, fires and resets at every time step.

    Attributes:
      reset: "hard" (to zero) or "soft" (subtracts the threshold).
      detach_reset: no gradient flows through the spike in the reset.
    """

    reset: str = "hard"
    detach_reset: bool = True

    def __post_init__(self):
        super().__post_init__()
        check_dynamics(reset=self.reset, detach_reset=self.detach_reset)

    def charge(self, membrane, current, parameters):
        """Returns the potential before firing, h[t], of one step.

        Args:
          membrane: v[t-1] after the last reset.
          current: x[t].
          parameters: {name: array}, as `ready` returns them, in the current's dtype.
        """
        raise NotImplementedError(f"{type(self).__name__} must override charge")

    def ready(self, parameters):
        """Returns parameters as `charge` takes them; as they are, unless overridden.

        Args:
          parameters: {name: array}, as `parameters` names them.
        """
        return parameters

    def step(self, membrane, current, threshold, parameters):
        """Returns (v[t], o[t]): one time step, as any scan can drive it.

        Args:
          membrane: v[t-1].
          current: x[t].
          threshold: firing threshold, > 0.
          parameters: {name: array}, as `ready` returns them, in the current's dtype.
        """
        charged = self.charge(membrane, current, parameters)
        return fire_and_reset(
            charged, threshold, self.reset, self.surrogate, self.alpha, self.detach_reset
        )[:2]

    def run(self, current, threshold, parameters, axis=0):
        """See `Neuron.run`: a scan of `step` from a membrane at rest."""
        check_current(current, axis)
        check_dynamics(threshold=threshold)
        parameters = {name: x.astype(current.dtype) for name, x in self.ready(parameters).items()}
        threshold = jnp.asarray(threshold, current.dtype)

        def step(membrane, x):
            return self.step(membrane, x, threshold, parameters)

        return scan_steps(step, resting(current, axis), current, axis)[1]

    def run_at(self, current_at, steps, shape, time_steps, threshold, parameters):
        """See `Neuron.run_at`; until the first input, all neurons of a channel are one."""
        first = current_at(0)
        parameters = {
            name: jnp.asarray(x, first.dtype) for name, x in self.ready(parameters).items()
        }
        threshold = jnp.asarray(threshold, first.dtype)
        membrane, emitted = jnp.zeros_like(first), []
        for t in range(steps[-1] + 1):
            membrane, spikes = self.step(membrane, current_at(t), threshold, parameters)
            if t in steps:
                emitted.append(jnp.broadcast_to(spikes, shape))
        return jnp.stack(emitted, 1)

    def update(self, time_steps):
        """See `Neuron.update`: that of a leak; override it where charging costs something else."""
        return Update(macs=1)
