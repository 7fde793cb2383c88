"""The mesh: all devices of all processes, in the order of their links.

It has two axes. Batches are split over "data"; with tensor parallelism the work on one example is
split over "model".
"""

import collections

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, Mesh

DATA, MODEL = "data", "model"


def create_mesh(axes, devices=None):
    """Returns a mesh over the devices, neighbours along "model" joined by the shortest links.

    The devices of a process lie together along "data", process after process: it feeds the part of
    every batch that has its number, and no example is split between processes. Within a process
    `jax.experimental.mesh_utils.create_device_mesh` decides by the links of the devices.

    Args:
      axes: {axis name: number of devices}; one of them may be -1 and takes what is left. Axes are
        "data" and "model".
      devices: to use; None for all of all processes.

    Raises:
      ValueError: if the axes do not use all devices exactly, if processes have different numbers of
        devices, or if the axis "model" would span processes.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = _sizes(axes, len(devices))
    return Mesh(arrange(sizes, devices), tuple(sizes))


def arrange(sizes, devices):
    """Returns the devices as they lie in a mesh, a NumPy array of the shape of `sizes`.

    Args:
      sizes: {axis name: number of devices}, >= 1; the product is the number of devices.
      devices: with the attributes of `jax.Device`.

    Raises:
      ValueError: as `create_mesh`.
    """
    counts = collections.Counter(device.process_index for device in devices)
    local = len(devices) // len(counts)
    if set(counts.values()) != {local}:
        raise ValueError(
            f"every process must have as many devices as the others, got {dict(counts)} (process: "
            "devices)"
        )
    if local % sizes.get(MODEL, 1):
        raise ValueError(
            f"mesh={dict(sizes)}: the axis 'model' must divide the {local} devices of each "
            "process, or several processes would have to feed the same examples"
        )
    inside = [size if axis != DATA else size // len(counts) for axis, size in sizes.items()]
    between = [len(counts) if axis == DATA else 1 for axis in sizes]
    return mesh_utils.create_hybrid_device_mesh(
        *(inside, between, devices),
        process_is_granule=True,
        allow_split_physical_axes=True,  # rather than refuse 8 x 2 on a torus of 4 x 4
    )


def check_processes(mesh):
    """Raises ValueError if processes could feed different data for one shard, or in another order.

    Each feeds the part of a batch that has its number, so its devices must lie together along
    "data", in the order of the processes, and those along "model" must be of one process.

    Args:
      mesh: a `Mesh`; one without devices (`AbstractMesh`) is not looked at.
    """
    if isinstance(mesh, AbstractMesh):
        return
    of_process = np.vectorize(lambda device: device.process_index, otypes=[int])(mesh.devices)
    rows = np.moveaxis(of_process, mesh.axis_names.index(DATA), 0).reshape(mesh.shape[DATA], -1)
    torn = [row for row, owners in enumerate(rows) if len(set(owners.tolist())) > 1]
    if torn:
        raise ValueError(
            f"mesh={dict(mesh.shape)}: row {torn[0]} of its axis 'data' lies on the processes "
            f"{sorted(set(rows[torn[0]].tolist()))}, which would have to feed the same examples; "
            "use create_mesh"
        )
    owners = rows[:, 0].tolist()
    counts = collections.Counter(owners)
    if owners != sorted(owners) or len(set(counts.values())) > 1:
        raise ValueError(
            f"mesh={dict(mesh.shape)}: the rows of its axis 'data' belong to the processes "
            f"{owners}; each must have as many, in their order: use create_mesh"
        )


def check_batch(batch_size, mesh, accumulate=1):
    """Raises ValueError if a batch, or each of its parts, does not divide evenly over the mesh.

    Args:
      batch_size: over all devices, divisible by `accumulate`.
      mesh: with an axis "data".
      accumulate: parts computed one after the other, >= 1.
    """
    if batch_size // accumulate % mesh.shape[DATA]:
        parts = f" x {accumulate=}" if accumulate > 1 else ""
        raise ValueError(
            f"{batch_size=} must be divisible by the {mesh.shape[DATA]} devices "
            f"of the mesh's axis 'data'{parts}"
        )


def _sizes(axes, count):
    """The axes with -1 replaced by what is left of `count` devices."""
    sizes = dict(axes)
    if DATA not in sizes or not set(sizes) <= {DATA, MODEL}:
        raise ValueError(f"mesh={dict(axes)} must name the axes 'data' and, if wanted, 'model'")
    fixed = int(np.prod([size for size in sizes.values() if size != -1]))
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) == 1 and fixed > 0 and count % fixed == 0:
        sizes[free[0]] = count // fixed
    if any(size < 1 for size in sizes.values()) or np.prod(list(sizes.values())) != count:
        raise ValueError(
            f"mesh={dict(axes)} does not fit {count} devices: data x model must be {count}, and "
            "one of both may be -1 for what the other leaves"
        )
    return sizes
