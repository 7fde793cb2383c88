"""Which time steps of which layers have an effect on the result.

A mask says when a layer may emit. Of those steps, many may be without effect: nothing listens any
more, the other operand of a product is silent, or nothing arrives and the bias alone cannot make
the layer fire. They are found from masks and biases alone, before anything is computed.
"""

import dataclasses

import numpy as np

# A bias up to this part of the threshold cannot make a leaky neuron fire, rounding included.
SAFE_BIAS = 0.999


@dataclasses.dataclass(frozen=True)
class Wiring:
    """Where a LIF layer gets its current from.

    Attributes:
      features: number of its channels.
      sources: names of the LIF layers that it listens to; none for the image, which is present at
        every step.
      product: whether the sources are multiplied with each other (attention), not added.
      linear: module name of the linear map between sources and layer; None for none.
      norm: module name of the normalisation after it; None for none.
      threshold: firing threshold.
    """

    features: int
    sources: tuple[str, ...] = ()
    product: bool = False
    linear: str | None = None
    norm: str | None = None
    threshold: float = 1.0


def effective_steps(masks, wirings, outputs, biases, neuron):
    """Returns the steps at which each layer's spikes are needed and can be there.

    The masked model's logits are the same if every other step is masked too.

    Args:
      masks: {layer name: bool [T]}.
      wirings: {layer name: `Wiring`} in forward order.
      outputs: names of the layers that the head averages over time.
      biases: {layer name: [C] current at a step at which nothing arrives}.
      neuron: the `NeuronConfig`.

    Returns:
      {layer name: steps, ascending}, in forward order; a layer without any is not needed at all.
    """
    arriving, emitted = {}, {}
    for name, wiring in wirings.items():
        arriving[name] = _arriving([emitted[s] for s in wiring.sources], wiring, masks[name].size)
        possible = can_fire(arriving[name], biases[name], wiring.threshold, neuron)
        emitted[name] = masks[name] & possible
    needed = {name: np.full(mask.size, name in outputs) for name, mask in masks.items()}
    for name, wiring in reversed(wirings.items()):
        emitted[name] = emitted[name] & needed[name]
        heard = _until_last(emitted[name])
        for source in wiring.sources:
            needed[source] |= heard & arriving[name] if wiring.product else heard
    return {name: tuple(np.flatnonzero(steps).tolist()) for name, steps in emitted.items()}


def can_fire(arriving, bias, threshold, neuron):
    """Returns at which steps a layer may fire, bool [T].

    After a hard reset the membrane potential lies below the threshold. A leaky neuron moves towards
    its current, so a current below the threshold keeps it there; one without leak stays there if
    the current is not positive. After a soft reset the potential may still be above, so that only
    the steps before the first input are known.

    Args:
      arriving: bool [T], the steps at which some input may arrive.
      bias: [C] current at the other steps.
      threshold: firing threshold.
      neuron: the `NeuronConfig`.
    """
    leaky = neuron.kind != "if" and neuron.tau is not None
    limit = SAFE_BIAS * threshold if leaky else 0.0
    if np.max(bias) > limit:
        return np.ones_like(arriving)
    return arriving if neuron.reset == "hard" else np.logical_or.accumulate(arriving)


def _arriving(sources, wiring, time_steps):
    if not sources:
        return np.ones(time_steps, bool)
    return np.all(sources, axis=0) if wiring.product else np.any(sources, axis=0)


def _until_last(steps):
    """Up to and including the last True: a neuron integrates over everything before a spike."""
    return np.logical_or.accumulate(steps[::-1])[::-1]
