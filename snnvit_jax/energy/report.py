"""The energy report of a model: every layer, the totals, and a plain transformer beside them."""

import dataclasses
import functools

import jax
import numpy as np

from snnvit_jax.common.variables import check_finite, params_of, problem
from snnvit_jax.deployment import planning
from snnvit_jax.energy import costs, tables
from snnvit_jax.energy.accounting import Accounting
from snnvit_jax.energy.observation import ModelShapes, decode, model_shapes, observe
from snnvit_jax.models import FAMILIES, check_model
from snnvit_jax.time_steps import masks
from snnvit_jax.xla import backends


@dataclasses.dataclass(frozen=True)
class EnergyReport:
    """What a model costs for one image, on average.

    Attributes:
      shapes: what is known without any number.
      counts: decoded counts, summed over the examples.
      masks: {spiking layer: bool [T], its active time steps}.
      examples: number of examples.
      accounting: the conventions of all figures.
      needed: {layer name: bool [T], the steps at which the deployed program computes it}; a layer
        that is not named is needed at all of them.
    """

    shapes: ModelShapes
    counts: dict
    masks: dict[str, np.ndarray]
    examples: int
    accounting: Accounting
    needed: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def under(self, **changes):
        """Returns the report of the same counts under other conventions.

        Args:
          **changes: fields of `Accounting`, for example integers="multiply".

        Raises:
          ValueError: see `Accounting.changed`.
        """
        return dataclasses.replace(self, accounting=self.accounting.changed(**changes))

    @functools.cached_property
    def layers(self):
        """{layer name: LayerEnergy} of convolutions and products, in forward order."""
        units, operands = self.counts["units"], self.counts["operands"]
        return {
            name: costs.layer_energy(
                shape,
                units[name],
                operands[name],
                self.examples,
                self.accounting,
                self.needed.get(name),
            )
            for name, shape in self.shapes.layers.items()
        }

    @functools.cached_property
    def neurons(self):
        """{layer name: NeuronUpdates} of spiking layers, in forward order."""
        active = self.counts["active"]
        return {
            name: costs.neuron_updates(
                shape, active[name], self.masks[name], self.examples, self.accounting
            )
            for name, shape in self.shapes.neurons.items()
        }

    @property
    def accumulates(self):
        """Accumulates (synaptic operations) of one image that something depends on."""
        return float(sum(layer.accumulates.sum() for layer in self.layers.values()))

    @property
    def arriving(self):
        """Accumulates of one image if everything that arrives anywhere were added."""
        return float(sum(layer.arriving.sum() for layer in self.layers.values()))

    @property
    def accumulates_by_rate(self):
        """Accumulates of one image by the published formulas, whatever integers cost."""
        return float(sum(layer.by_rate.sum() for layer in self.layers.values()))

    @property
    def macs(self):
        """Multiply-accumulates of one image."""
        return sum(layer.macs for layer in self.layers.values())

    @property
    def microjoule(self):
        """Energy of one image, with membrane updates only if the accounting says so."""
        products = sum(layer.picojoule for layer in self.layers.values()) * 1e-6
        return products + self.accounting.count_membrane * self.membrane_microjoule

    @property
    def membrane_updates(self):
        """Membrane updates of one image."""
        return int(sum(layer.updates.sum() for layer in self.neurons.values()))

    @property
    def membrane_microjoule(self):
        """Energy of the membrane updates of one image."""
        return sum(layer.picojoule for layer in self.neurons.values()) * 1e-6

    @property
    def plain_macs(self):
        """Multiply-accumulates of one image in a plain vision transformer of the same shapes.

        One time step, real activations, and attention with a softmax, hence as (q kᵀ) v.
        """
        return sum(shape.plain_macs for shape in self.shapes.layers.values())

    @property
    def plain_microjoule(self):
        """Energy of one image in a plain vision transformer of the same shapes."""
        return self.plain_macs * self.accounting.mac * 1e-6

    @property
    def not_spiking(self):
        """Names of the layers that see something else than spikes or small integers."""
        return [name for name, layer in self.layers.items() if layer.kind == "real"]

    @property
    def not_binary(self):
        """{"layer: operand": Operand} of every operand that is not spikes, in forward order."""
        return {
            f"{name}: {which}": operand
            for name, layer in self.layers.items()
            for which, operand in layer.operands.items()
            if operand.kind != "spikes"
        }

    @property
    def silent_layers(self):
        """Names of the layers that may fire and never do: what follows them costs nothing."""
        return [n for n, x in self.neurons.items() if np.any(self.masks[n]) and not x.spikes.any()]

    def to_json(self):
        """Returns every count and figure, and what is needed to compute them again, as JSON."""
        return tables.to_json(self)

    def table(self):
        """Returns operations and energy of each layer as a Markdown table."""
        return tables.markdown(self)


def energy_report(model, variables, images, **accounting):
    """Counts a model's operations on a batch of images, and their energy.

    Unless told otherwise, the input embedding counts once, as it is computed, and small-integer
    inputs count as accumulates.

    Args:
      model: a Linen module whose products are layers of `layer_operations.OPERATIONS`.
      variables: {"params", "batch_stats"} of the model.
      images: [B, H, W, C], normalised, or recordings [B, T, H, W, C]; B >= 1.
      **accounting: fields of `Accounting`: `mac`, `ac` and `membrane` in pJ, `integers`
        ("accumulate" or "multiply"), `count_membrane`, `repeat_embedding`.

    Returns:
      An `EnergyReport`, means over the batch.

    Raises:
      ValueError: for what is no model or no variables, images or conventions that do not fit,
        weights that are not finite, or a model with uncounted products.
    """
    check_model(model)
    rules = Accounting().changed(**accounting)
    if not hasattr(images, "dtype"):
        raise ValueError(f"images must be an array, got {type(images).__name__}")
    shape = np.shape(images)
    if len(shape) < 2 or shape[0] < 1:
        raise ValueError(f"images must be [B, H, W, C] with B >= 1, got {shape}")
    params_of(variables)
    check_finite(variables)
    if found := problem(images):  # spikes would hide it
        raise ValueError(f"images hold {found}")
    model_shapes(model, shape[1:])
    counts = decode(_count(variables, images, model=model))
    return report_from_counts(model, variables, counts, shape[0], shape[1:], rules)


@functools.partial(backends.jit, static_argnames="model")
def _count(variables, images, *, model):
    return observe(model, variables, images)[1]


def report_from_counts(model, variables, counts, examples, image_shape, accounting=None):
    """Returns the energy report of counts summed over many batches.

    Args:
      model: a Linen module.
      variables: {"params", "batch_stats"} of the model.
      counts: of `observe`, decoded and added up.
      examples: how many were counted, >= 1.
      image_shape: (H, W, C) of one image, (T, H, W, C) of a recording.
      accounting: an `Accounting`; None for the default.

    Raises:
      ValueError: for what are no variables, or a model with uncounted products.
    """
    shapes = model_shapes(model, image_shape)
    scores = masks.scores(params_of(variables)) if shapes.neurons else {}
    active = {name: np.asarray(score) > 0 for name, score in scores.items()}
    needed = needed_steps(model, variables, image_shape, active)
    return EnergyReport(shapes, counts, active, examples, accounting or Accounting(), needed)


def needed_steps(model, variables, image_shape, active):
    """Returns {layer name: bool [T]}, the steps at which the deployed program computes products.

    Nothing for a model that is of no family, whose layers use all their steps, or that cannot be
    deployed for want of a `layers.Head`.

    Args:
      model: a Linen module.
      variables: {"params", "batch_stats"} of the model.
      image_shape: of one image or recording.
      active: {spiking layer: bool [T], its active time steps}.
    """
    is_known = any(type(model) is family.module for family in FAMILIES.values())
    if not is_known or all(steps.all() for steps in active.values()):
        return {}
    variables = {key: variables[key] for key in ("params", "batch_stats") if key in variables}
    variables = jax.tree.map(np.asarray, jax.device_get(variables))
    tracer = planning.trace(model, variables, tuple(image_shape))
    if not planning.has_readout(tracer):  # it cannot be deployed
        return {}
    effects, T = planning.effects(tracer, active, model.config.time_steps), model.config.time_steps
    return {
        node.path: np.isin(np.arange(T), effects.computed(number))
        for number, node in enumerate(tracer.nodes)
        if node.operation in ("linear", "product") or (node.operation == "map" and node.path)
    }
