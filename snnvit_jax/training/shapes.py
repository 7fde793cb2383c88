"""A training step in shapes alone, to be traced or compiled where nothing is run."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from snnvit_jax.training.step import create_state


def step_shapes(procedure, batch_size, mesh=None):
    """Returns (state, batch) of a training step on RGB images, as `jax.ShapeDtypeStruct`s.

    Args:
      procedure: a `Procedure`.
      batch_size: over all devices, >= 1.
      mesh: with an axis "data", which divides the batch; the state is on every device. None for no
        placement.
    """
    image_shape = (*procedure.model.config.image_size, 3)
    state = jax.eval_shape(lambda key: create_state(procedure, key, image_shape), jax.random.key(0))
    dtype = jnp.float32 if procedure.normalization is None else jnp.uint8
    batch = {
        "image": jax.ShapeDtypeStruct((batch_size, *image_shape), dtype),
        "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((batch_size,), bool),
    }
    if mesh is None:
        return state, batch
    return _placed(state, mesh, PartitionSpec()), _placed(batch, mesh, PartitionSpec("data"))


def _placed(tree, mesh, spec):
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )
