"""What a training step cannot do without, in bytes, found without compiling anything.

Counted are the training state and what the forward pass keeps for the backward pass. A compiled
program needs more besides (buffers of what it is computing), and hardly ever less.
"""

import math

import jax
import jax.numpy as jnp

from snnvit_jax.training.step import loss_fn
from snnvit_jax.xla import traced


def state_bytes(shapes):
    """Returns the bytes of a training state on one device.

    Args:
      shapes: of its arrays, `jax.ShapeDtypeStruct`s with shardings, as a tree.
    """

    def on_a_device(leaf):
        return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize

    return sum(map(on_a_device, jax.tree.leaves(shapes)))


def kept_bytes(procedure, state, image_shape, examples):
    """Returns the bytes that are kept for the backward pass of so many examples.

    Args:
      procedure: a `Procedure`.
      state: the training state as shapes.
      image_shape: (H, W, C) of one image, (T, H, W, C) of a recording.
      examples: that are computed at once, >= 1.
    """
    batch = _batch(procedure, image_shape, examples)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def loss(params, state, batch, key):
        return loss_fn(
            params,
            batch_stats=state.batch_stats,
            state=state,
            batch=batch,
            key=key,
            procedure=procedure,
        )

    kept = traced.kept_bytes(loss, state.params, state, batch, key)
    # The weights are among what is kept, and they are part of the state.
    return max(0, kept - traced.tree_bytes(state.params))


def _batch(procedure, image_shape, examples):
    classes = procedure.model.config.num_classes
    shapes = {
        "image": (examples, *image_shape),
        "label": (examples,),
        "mask": (examples,),
        "target": (examples, classes),
        "weight": (examples,),
    }
    if procedure.distillation is not None:
        shapes["teacher"] = (examples, classes)
    kinds = {"label": jnp.int32}
    return {
        name: jax.ShapeDtypeStruct(shape, kinds.get(name, jnp.float32))
        for name, shape in shapes.items()
    }
