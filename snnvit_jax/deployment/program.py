"""The program of a deployed model: its own forward pass under a plan, as a function of weights.

Weights are named "layer/kernel" and "layer/bias" for linear maps, with the bias holding all that is
constant in the current of the neurons behind it; "layer/current" for neurons that read a sum; and
"layer/PARAMETER" for what neurons learn.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from snnvit_jax.deployment.folding import node_factor
from snnvit_jax.signals import Plan, Signal


@dataclasses.dataclass(frozen=True, eq=False)  # jax.jit wants a hash
class Program:
    """The forward pass of a model with a fixed schedule.

    Attributes:
      model: its Linen module.
      plan: which layers are computed, and when.
      places: {name of a weight: path of the variable it is, collection first}.
    """

    model: object
    plan: Plan
    places: dict[str, tuple[str, ...]]

    def __call__(self, weights, images):
        """Returns the logits [B, classes].

        Args:
          weights: {name: array}.
          images: [B, H, W, C], normalised, or [B, T, H, W, C].
        """
        return self.model.apply(self.variables(weights), self.signal(images))

    def variables(self, weights):
        """Returns weights as the variables of the model.

        Args:
          weights: {name: array}.
        """
        flat = {self.places[name]: array for name, array in weights.items()}
        return traverse_util.unflatten_dict(flat)

    def signal(self, images):
        """Returns images as what the model reads under its plan.

        Args:
          images: [B, H, W, C] or [B, T, H, W, C].
        """
        values = images.astype(self.plan.dtype)
        if images.ndim == 5:
            return Signal.of(values, plan=self.plan)
        return Signal.of(values[:, None], self.model.config.time_steps, plan=self.plan)


def collect_weights(effects, kernels, plan, dtype):
    """Returns the weights that a plan leaves, and where they belong.

    Args:
      effects: `planning.Effects`.
      kernels: {linear map: kernel}, folded.
      plan: a `Plan`.
      dtype: of kernels; everything else has at least float32.

    Returns:
      ({name: array}, {name: path of the variable, collection first}).

    Raises:
      ValueError: naming a layer whose constant is not finite.
    """
    wide = jnp.promote_types(dtype, jnp.float32)
    found = {}
    for number, node in enumerate(effects.tracer.nodes):
        for name, path, array, kind in _of_node(effects, number, node, kernels, plan):
            if not np.isfinite(array).all():
                raise ValueError(
                    f"{name!r} is not finite once normalisations are folded in: the model holds a "
                    "NaN, an infinity or a negative variance"
                )
            if name in found:  # a second neuron behind the same linear map
                name = f"{node.path}/current"
            found[name] = path, jnp.asarray(array, dtype if kind == "kernel" else wide)
    weights = {name: array for name, (_, array) in found.items()}
    return weights, {name: path for name, (path, _) in found.items()}


def _of_node(effects, number, node, kernels, plan):
    """Yields (name, path, array, "kernel" or "wide") of what one node needs."""
    if not node.path:
        return
    path = tuple(node.path.split("/"))
    if node.operation == "readout":
        constant = _vector(effects.constants[number])
        if constant.any():
            yield f"{node.path}/features", ("constants", *path, "features"), constant, "wide"
        for key, value in node.details["weights"].items():
            yield f"{node.path}/{key}", ("params", *path, key), np.asarray(value), "wide"
        return
    if not effects.computed(number) or node.path in plan.away:
        return
    if node.operation == "linear":
        yield f"{node.path}/kernel", ("params", *path, "kernel"), kernels[node.path], "kernel"
    elif node.operation in ("norm", "scale") and node.path not in plan.folded:
        yield f"{node.path}/factor", ("constants", *path, "factor"), node_factor(node), "wide"
    elif node.operation == "product":
        for i, source in enumerate(node.inputs):
            if effects.constants[source].any():
                constant = effects.constants[source]
                place = ("constants", *path, f"operand_{i}")
                yield f"{node.path}/operand_{i}", place, constant, "wide"
    elif node.operation == "neuron":
        constant = _vector(effects.constants[node.inputs[0]])
        name = _name_of_current(effects, node, plan)
        if constant.any() or not name.endswith("/current"):
            yield name, ("constants", *path, "current"), constant, "wide"
        for key, value in node.details["parameters"].items():
            yield f"{node.path}/{key}", ("params", *path, key), np.asarray(value), "wide"


def _name_of_current(effects, node, plan):
    """What the constant current of a neuron is called: by the linear map before it, if one is."""
    source = effects.tracer.nodes[node.inputs[0]]
    while source.operation in ("norm", "scale", "map") and source.path in plan.folded | {""}:
        source = effects.tracer.nodes[source.inputs[0]]
    return f"{node.path}/current" if source.operation != "linear" else f"{source.path}/bias"


def _vector(constant):
    """One value for each channel, where all places have the same; the whole otherwise."""
    flat = constant.reshape(-1, constant.shape[-1])
    return flat[0] if (flat == flat[0]).all() else constant
