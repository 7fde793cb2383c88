"""Recording the spikes of every layer of a forward pass, in forward order.

The collection "spikes" holds, for each LIF layer, its spikes and its place in the forward pass.
The place is needed because `jax.jit` returns dictionaries sorted by name. It is no array but part
of the tree's structure, so that it passes through every transformation as it is.
"""

from typing import Any

import flax.struct
from flax import traverse_util

COLLECTION = "spikes"
_COUNT = "recorded_layers"  # so far, in the forward pass; beside the layers, at the model's root


class Recorded(flax.struct.PyTreeNode):
    """What one layer emitted.

    Attributes:
      emitted: spikes [T, B, ...] after the time-step mask.
      place: of the layer in the forward pass, from 0.
    """

    emitted: Any
    place: int = flax.struct.field(pytree_node=False)


class Count(flax.struct.PyTreeNode):
    """How many layers were recorded.

    Attributes:
      layers: their number.
    """

    layers: int = flax.struct.field(pytree_node=False, default=0)


def recording(module):
    """Returns whether the spikes of a layer are to be recorded: its collection is mutable.

    Args:
      module: the bound Linen module that emits them.
    """
    return module.is_mutable_collection(COLLECTION) and not module.is_initializing()


def record(module, spikes):
    """Records the spikes of a layer for which `recording` is true.

    Args:
      module: the bound Linen module that emits them; its path is the layer's name.
      spikes: [T, B, ...] after the time-step mask.
    """
    root = module.scope.root
    place = root.get_variable(COLLECTION, _COUNT, Count()).layers
    root.put_variable(COLLECTION, _COUNT, Count(place + 1))
    module.sow(
        COLLECTION,
        "record",
        Recorded(spikes, place),
        init_fn=lambda: None,
        reduce_fn=lambda _, new: new,
    )


def spikes(seen):
    """Returns the recorded spikes of every LIF layer, by name and in forward order.

    Args:
      seen: what `model.apply(variables, images, mutable=["spikes"])` returns second, also out of
        `jax.jit`, `jax.vmap`, `jax.lax.map` or `jax.eval_shape`.

    Returns:
      {layer name: spikes [T, B, ...] after the mask}, for example "block_0/attn/q_lif". Axes that a
      transformation adds come first.

    Raises:
      ValueError: if nothing was recorded.
    """
    if COLLECTION not in seen:
        raise ValueError(
            f"no spikes were recorded (collections: {sorted(seen)}); "
            'call model.apply(..., mutable=["spikes"])'
        )
    flat = traverse_util.flatten_dict({**seen[COLLECTION]})
    found = {path[:-1]: entry for path, entry in flat.items() if isinstance(entry, Recorded)}
    layers = sorted(found, key=lambda path: found[path].place)
    return {"/".join(path): found[path].emitted for path in layers}
