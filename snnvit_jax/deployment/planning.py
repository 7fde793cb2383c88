"""Which time steps of which layers have an effect, found before anything is computed.

A mask says when a layer may emit. Of those steps, many may be without effect: nobody listens any
more, the other operand of a product is silent, or nothing arrives and the constant current alone
cannot make the layer fire. The model's own forward pass is traced, without numbers, to learn who
reads whom; constants and steps then follow node by node.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from snnvit_jax.deployment.folding import as_factor, computed_now, node_factor
from snnvit_jax.models import variable_shapes
from snnvit_jax.signals import Plan, Signal, Tracer


@dataclasses.dataclass(frozen=True)
class Effects:
    """What a schedule leaves of a model.

    Attributes:
      tracer: the nodes of the forward pass.
      constants: of each node, what its signal is at a step at which it is not active; NumPy
        float64 [*shape of one step of one example].
      active: of each node, bool [T]: the steps at which it may be anything else.
      needed: of each node, bool [T]: the steps at which somebody reads it.
    """

    tracer: Tracer
    constants: list[np.ndarray]
    active: list[np.ndarray]
    needed: list[np.ndarray]

    def computed(self, number):
        """Returns the steps at which a node is computed, ascending.

        Args:
          number: of the node.
        """
        return tuple(np.flatnonzero(self.active[number] & self.needed[number]).tolist())

    def plan(self, folded, dtype, merged):
        """Returns the `Plan` of a forward pass that computes nothing else.

        Args:
          folded: names of the normalisations and scales folded into linear maps.
          dtype: of spikes and kernels.
          merged: a `merging.Merged`.
        """
        steps, computed = {}, {}
        for number, node in enumerate(self.tracer.nodes):
            table = steps if node.operation == "neuron" else computed
            if node.path:
                table[node.path] = self.computed(number)
        folded = frozenset(folded)
        return Plan(steps, computed, folded, dtype, merged.functions, merged.away)


def trace(model, variables, image_shape):
    """Returns the `Tracer` of a model's forward pass; nothing is computed.

    Args:
      model: from `create_model`.
      variables: {"params", "batch_stats"} of the model, NumPy arrays.
      image_shape: (H, W, C) of an image, or (T, H, W, C) of a recording.

    Raises:
      ValueError: if two layers have the same name, which a plan could not tell apart.
    """
    tracer = _traced(model, variables, image_shape)
    names = [node.path for node in tracer.nodes if node.path]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"layers {twice} are called more than once in a forward pass")
    return tracer


def forward_order(model, image_shape):
    """Returns the names of a model's layers, spiking or not, as a forward pass comes to them.

    Args:
      model: from `create_model`.
      image_shape: (H, W, C) of an image, or (T, H, W, C) of a recording.
    """
    shapes = variable_shapes(model, image_shape)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    nodes = _traced(model, variables, image_shape).nodes
    return list(dict.fromkeys(node.path for node in nodes if node.path))


def _traced(model, variables, image_shape):
    tracer, T = Tracer(), model.config.time_steps
    shape = (1, *image_shape) if len(image_shape) == 4 else (1, 1, *image_shape)
    static = None if len(image_shape) == 4 else T

    def forward(images):
        model.apply(variables, Signal.of(images.astype(model.config.dtype), static, tracer=tracer))

    jax.eval_shape(forward, jax.ShapeDtypeStruct(shape, jnp.float32))
    return tracer


def has_readout(tracer):
    """Returns whether a forward pass ends in a `layers.Head`, from which it is known who reads.

    Args:
      tracer: from `trace`.
    """
    return any(node.operation == "readout" for node in tracer.nodes)


def check_all_noted(tracer, params):
    """Raises ValueError for a model of which a plan would leave out a part.

    That is one without a `layers.Head`, or with a parameter that belongs to no node: the program of
    a deployed model has the weights of its nodes alone.

    Args:
      tracer: from `trace`.
      params: of the model, those that were traced.
    """
    if not has_readout(tracer):
        raise ValueError("the model cannot be deployed: its logits must be those of a layers.Head")
    paths = {node.path for node in tracer.nodes if node.path}
    numbers = [x for node in tracer.nodes for x in node.details.get("numbers", ())]
    for path, leaf in traverse_util.flatten_dict(params).items():
        owners = {"/".join(path[:end]) for end in range(1, len(path))}
        if not owners & paths and not any(leaf is number for number in numbers):
            raise ValueError(
                f"the model cannot be deployed: the parameter {'/'.join(path)!r} belongs to none "
                "of its layers that read signals; use snnvit_jax.layers (Linear, Conv, BatchNorm, "
                "Scale, Head) in place of other modules"
            )


def effects(tracer, masks, time_steps):
    """Returns the `Effects` of a schedule.

    The masked model's logits are the same if every other step is masked too.

    Args:
      tracer: from `trace`.
      masks: {spiking layer: bool [T]}.
      time_steps: T.
    """
    constants, active = [], []
    for node in tracer.nodes:
        constants.append(_constant(node, [constants[i] for i in node.inputs]))
        active.append(_active(node, constants, active, masks, time_steps))
    needed = [np.zeros(time_steps, bool) for _ in tracer.nodes]
    for number, node in reversed(list(enumerate(tracer.nodes))):
        reads = _reads(node, active[number] & needed[number], time_steps)
        for i in node.inputs:
            needed[i] |= reads
    return Effects(tracer, constants, active, needed)


def _constant(node, inputs):
    """What a node's signal is where it is not active."""
    return _CONSTANTS[node.operation](node, inputs)


def _zero(node, inputs):
    return np.zeros(node.shape)


def _of_linear(node, inputs):
    bias = 0.0 if node.details["bias"] is None else np.float64(node.details["bias"])
    return _applied(node.details["function"], inputs[0], node.shape, node.details["kernel"]) + bias


def _of_norm(node, inputs):
    factor = as_factor(node.details["scale"], node.details["var"])
    mean, bias = np.float64(node.details["mean"]), np.float64(node.details["bias"])
    border = (0.0 - mean) * factor + bias
    return _framed((inputs[0] - mean) * factor + bias, border, node.shape)


def _of_scale(node, inputs):
    return inputs[0] * node_factor(node)


def _of_sum(node, inputs):
    return np.broadcast_to(sum(inputs[1:], inputs[0]), node.shape)


def _of_product(node, inputs):
    if any(not x.any() for x in inputs):
        return np.zeros(node.shape)
    return _applied(node.details["function"], inputs, node.shape)


def _of_map(node, inputs):
    return _mapped(node.details["function"], inputs[0], node.shape)


def _of_readout(node, inputs):
    """The mean over space."""
    return _applied(node.details["function"], inputs[0], node.shape[-1:])


# operation -> function of (node, constants of its inputs)
_CONSTANTS = {
    "image": _zero,
    "linear": _of_linear,
    "norm": _of_norm,
    "scale": _of_scale,
    "map": _of_map,
    "sum": _of_sum,
    "product": _of_product,
    "neuron": _zero,
    "readout": _of_readout,
}


def _mapped(function, constant, shape):
    """A mapped constant, if values and constants may be mapped one by one.

    A maximum may not, where the constant differs between the values it chooses from.
    """
    mapped = _applied(function, constant, shape)
    if constant.any():
        values = np.random.default_rng(97).normal(size=constant.shape) * np.abs(constant).max()
        apart = _applied(function, values, shape) + mapped
        if not np.allclose(_applied(function, values + constant, shape), apart, atol=1e-9):
            raise ValueError(
                f"{getattr(function, 'function', function)!r} maps a current of shape"
                f" {constant.shape} whose constant part differs between the places it chooses from,"
                " so that silent steps cannot be left out: map the spikes after the neuron, or a"
                " current that no padded convolution of another constant gives"
            )
    return mapped


def _framed(inside, border, shape):
    """An image with what a normalisation makes of zero around it, if its shape is larger."""
    if inside.shape == shape:
        return inside
    rows, columns = ((outer - n) // 2 for outer, n in zip(shape, inside.shape[:2], strict=False))
    framed = np.broadcast_to(border, shape).copy()
    framed[rows : shape[0] - rows, columns : shape[1] - columns] = inside
    return framed


def _applied(function, inputs, shape, *weights):
    """A function of values [1, 1, ...], computed now, in double precision."""
    if not isinstance(inputs, list):
        inputs = [inputs]
    if not any(x.any() for x in inputs):
        return np.zeros(shape)
    arrays = [x[None, None] for x in inputs]
    return computed_now(function, *arrays, *map(np.float64, weights)).reshape(shape)


def _active(node, constants, active, masks, time_steps):
    """At which steps a node's signal may be anything else than its constant."""
    if node.operation == "image":
        return np.ones(time_steps, bool)
    arriving = [active[i] for i in node.inputs]
    if node.operation == "neuron":
        details, constant = node.details, constants[node.inputs[0]]
        own = {name: np.asarray(x) for name, x in details["parameters"].items()}
        possible = details["neuron"].may_emit(arriving[0], constant, details["threshold"], own)
        return masks[node.path] & possible
    if node.operation == "product":
        silent = [on for on, i in zip(arriving, node.inputs, strict=True) if not constants[i].any()]
        return np.all(silent, axis=0) if silent else np.any(arriving, axis=0)
    return np.any(arriving, axis=0)


def _reads(node, wanted, time_steps):
    """At which steps a node reads its inputs, if its output is wanted at some."""
    if node.operation == "readout":
        return np.ones(time_steps, bool)
    if node.operation == "neuron":
        return node.details["neuron"].steps_read(wanted)
    return wanted
