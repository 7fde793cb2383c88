"""Recording the spikes of every layer of a forward pass, in forward order.

The collection "spikes" holds, for each LIF layer, its spikes and its place in the forward pass.
The place is needed because `jax.jit` returns dictionaries sorted by name.
"""

import numpy as np
from flax import traverse_util

COLLECTION = "spikes"
_COUNT = "recorded_layers"  # so far, in the forward pass; beside the layers, at the model's root


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
    place = root.get_variable(COLLECTION, _COUNT, np.int32(0))
    root.put_variable(COLLECTION, _COUNT, np.int32(place + 1))
    entry = {"order": place, "emitted": spikes}
    module.sow(COLLECTION, "record", entry, init_fn=dict, reduce_fn=lambda _, new: new)


def spikes(seen):
    """Returns the recorded spikes of every LIF layer, by name and in forward order.

    Args:
      seen: what `model.apply(variables, images, mutable=["spikes"])` returns second.

    Returns:
      {layer name: spikes [T, B, ...] after the mask}, for example "block_0/attn/q_lif".

    Raises:
      ValueError: if nothing was recorded.
    """
    if COLLECTION not in seen:
        raise ValueError(
            f"no spikes were recorded (collections: {sorted(seen)}); "
            'call model.apply(..., mutable=["spikes"])'
        )
    flat = traverse_util.flatten_dict({**seen[COLLECTION]})
    flat.pop((_COUNT,), None)
    layers = sorted({path[:-2] for path in flat}, key=lambda p: int(flat[(*p, "record", "order")]))
    return {"/".join(p): flat[(*p, "record", "emitted")] for p in layers}
