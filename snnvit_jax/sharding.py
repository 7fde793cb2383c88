"""Which device holds what: the mesh, and the placement of states and batches on it."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def create_mesh(axes, devices=None):
    """Returns a mesh over the devices.

    Args:
      axes: {axis name: number of devices}; one of them may be -1 and takes what is left.
      devices: to use; None for all.

    Raises:
      ValueError: if the axes do not use all devices exactly.
    """
    devices = jax.devices() if devices is None else devices
    sizes = dict(axes)
    fixed = int(np.prod([size for size in sizes.values() if size != -1]))
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) == 1 and fixed > 0 and len(devices) % fixed == 0:
        sizes[free[0]] = len(devices) // fixed
    if any(size < 1 for size in sizes.values()) or np.prod(list(sizes.values())) != len(devices):
        raise ValueError(f"mesh={dict(axes)} does not fit {len(devices)} devices")
    return Mesh(np.reshape(devices, tuple(sizes.values())), tuple(sizes))


def check_batch(batch_size, mesh):
    """Raises ValueError if a batch does not divide evenly over the mesh.

    Args:
      batch_size: over all devices.
      mesh: with an axis "data".
    """
    if batch_size % mesh.shape["data"]:
        raise ValueError(
            f"{batch_size=} must be divisible by the {mesh.shape['data']} devices "
            "of the mesh's axis 'data'"
        )


def replicate(tree, mesh):
    """Returns the tree with a copy of every array on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def shard_batch(batch, mesh):
    """Returns the batch split over the mesh's axis "data".

    Args:
      batch: {name: array [B, ...]} of this process.
      mesh: with an axis "data".
    """
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}
