"""What one layer costs for one image: operations from its counts, energy under an `Accounting`."""

import dataclasses

import numpy as np

from snnvit_jax.energy import operations
from snnvit_jax.energy.layer_operations import LayerShape
from snnvit_jax.energy.observation import NeuronShape

KINDS = ("spikes", "integers", "real")  # from the cheapest to the dearest


@dataclasses.dataclass(frozen=True)
class Operand:
    """What was seen of one operand of a layer.

    Attributes:
      rate: mean of its values at each time step, [T]; a value that is no small integer enters as 0.
      integers: share of values that are whole numbers in [2, 127].
      others: share of values that are not whole numbers in [0, 127].
    """

    rate: np.ndarray
    integers: float
    others: float

    @property
    def kind(self):
        """Either "spikes" (all 0 or 1), "integers" (all whole numbers in [0, 127]) or "real"."""
        return "real" if self.others else "integers" if self.integers else "spikes"


@dataclasses.dataclass(frozen=True)
class LayerEnergy:
    """What a convolution or product costs for one image.

    Attributes:
      accumulates: mean number at each time step [T]; 0 where it costs multiply-accumulates, and at
        steps that the deployed program leaves out because nothing depends on them.
      arriving: the same with all that arrives, at those steps too.
      macs: multiply-accumulates over all its time steps; 0 where it costs accumulates. A time step
        at which no image brings any input costs none.
      picojoule: energy of both.
      by_rate: accumulates [T] by the published formulas; 0 for a real-valued input.
      operands: {name: Operand}.
      shape: the static part.
    """

    accumulates: np.ndarray
    arriving: np.ndarray
    macs: int
    picojoule: float
    by_rate: np.ndarray
    operands: dict[str, Operand]
    shape: LayerShape

    @property
    def kind(self):
        """The dearest kind among its operands, "spikes", "integers" or "real".

        Without those whose values are added where the others have spikes (`LayerShape.added`).
        """
        return _dearest(self.operands, self.shape)


@dataclasses.dataclass(frozen=True)
class NeuronUpdates:
    """What a spiking layer does for one image.

    Attributes:
      spikes: mean number of neurons that emit something at each time step, after the mask, [T].
      updates: membrane updates at each time step [T]: of all neurons up to the last active step,
        or at active steps alone if no potential goes from step to step.
      picojoule: energy of the updates.
      shape: the static part.
    """

    spikes: np.ndarray
    updates: np.ndarray
    picojoule: float
    shape: NeuronShape

    @property
    def rates(self):
        """Share of the neurons that emit something at each time step, [T]."""
        return self.spikes / self.shape.neurons


def layer_energy(shape, units, parts, examples, accounting, needed=None):
    """Returns the `LayerEnergy` of a layer.

    Args:
      shape: its `LayerShape`.
      units: its input units at each time step, summed over the examples, [T].
      parts: {operand name: {"total", "integers", "others"}}, [T] each, as `observe` counts them.
      examples: number of examples.
      accounting: an `Accounting`.
      needed: bool [T], the steps at which the deployed program computes the layer; None for all.
    """
    needed = np.ones(1, bool) if needed is None else needed
    needed = needed if len(units) > 1 else needed.any(keepdims=True)  # or computed once for all
    operands = {
        name: _operand(parts[name], size * examples) for name, size in shape.operands.items()
    }
    kind, macs = _dearest(operands, shape), 0
    arriving, by_rate = units * shape.fan_out / examples, _by_rate(shape, operands, kind)
    if accounting.multiplies(kind):
        arriving, macs = np.zeros_like(arriving), shape.macs * _steps_with_input(parts, needed)
    times = shape.repeats if accounting.repeat_embedding else 1
    arriving, macs, by_rate = arriving * times, macs * times, by_rate * times
    accumulates = arriving * needed
    picojoule = float(accumulates.sum() * accounting.ac + macs * accounting.mac)
    return LayerEnergy(accumulates, arriving, macs, picojoule, by_rate, operands, shape)


def neuron_updates(shape, active, mask, examples, accounting):
    """Returns the `NeuronUpdates` of a spiking layer.

    Args:
      shape: its `NeuronShape`.
      active: neurons that emit something at each time step, summed over the examples, [T].
      mask: bool [T], its active steps.
      examples: number of examples.
      accounting: an `Accounting`.
    """
    update, needed = shape.neuron.update(shape.time_steps), shape.neuron.steps_updated(mask)
    has_membrane = bool(update.macs or update.accumulates)
    updates = np.where(needed, shape.neurons * has_membrane, 0)
    picojoule = float(updates.sum() * accounting.membrane_update(update))
    return NeuronUpdates(active / examples, updates, picojoule, shape)


def _operand(parts, values_per_step):
    values = values_per_step * len(parts["total"])
    return Operand(
        rate=parts["total"] / values_per_step,
        integers=float(parts["integers"].sum() / values),
        others=float(parts["others"].sum() / values),
    )


def _dearest(operands, shape):
    kinds = (operand.kind for name, operand in operands.items() if name not in shape.added)
    return max(kinds, key=KINDS.index)


def _by_rate(shape, operands, kind):
    if kind == "real":
        return np.zeros(shape.time_steps)
    sums = {name: operand.rate * shape.operands[name] for name, operand in operands.items()}
    return operations.accumulates_by_rate(shape, sums)


def _steps_with_input(parts, needed):
    """Number of needed steps at which any operand is anything else than zero for any example."""
    anything = [(part["total"] > 0) | (part["others"] > 0) for part in parts.values()]
    return int((np.any(anything, axis=0) & needed).sum())
