"""The order of devices, of one process and of several, with devices that do not exist."""

import dataclasses
import itertools
import types

import jax
import numpy as np
import pytest

from snnvit_jax.distributed import mesh as mesh_lib
from snnvit_jax.distributed import sharding


@dataclasses.dataclass(frozen=True)
class Device:
    """What `mesh_utils` looks at."""

    id: int
    process_index: int = 0
    platform: str = "cpu"
    device_kind: str = "cpu"
    coords: tuple = ()
    core_on_chip: int = 0


EIGHT = [Device(i) for i in range(8)]


def arranged(axes, devices):
    """Processes and numbers of the devices as they lie in a mesh, [data, model, 2]."""
    sizes = mesh_lib._sizes(axes, len(devices))
    grid = mesh_lib.arrange(sizes, devices)
    assert sorted(d.id for d in grid.ravel()) == sorted(d.id for d in devices)
    return np.array([[(d.process_index, d.id) for d in row] for row in grid])


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ({"data": -1}, {"data": 8}),
        ({"data": -1, "model": 2}, {"data": 4, "model": 2}),
        ({"data": 8, "model": 1}, {"data": 8, "model": 1}),
        ({"data": 1, "model": -1}, {"data": 1, "model": 8}),
    ],
)
def test_the_mesh_takes_all_devices(axes, shape):
    sizes = mesh_lib._sizes(axes, 8)
    assert sizes == shape
    assert mesh_lib.arrange(sizes, EIGHT).shape == tuple(shape.values())


@pytest.mark.parametrize(
    "axes", [{"data": 3}, {"data": -1, "model": 3}, {"data": -1, "model": -1}, {"data": 0}]
)
def test_axes_that_do_not_fit_are_named(axes):
    with pytest.raises(ValueError, match=f"mesh={axes} does not fit 8 devices"):
        mesh_lib.create_mesh(axes, EIGHT)


@pytest.mark.parametrize("axes", [{"model": 8}, {"data": 4, "pipe": 2}, {}])
def test_axes_of_other_names_are_named(axes):
    with pytest.raises(ValueError, match=f"mesh={axes} must name the axes 'data'"):
        mesh_lib.create_mesh(axes, EIGHT)


LISTED = {
    "process by process": [Device(i, i // 4) for i in range(8)],
    "in turn": [Device(i, i % 2) for i in range(8)],
    "backwards": [Device(i, 1 - i // 4) for i in range(8)],
    "four processes": [Device(i, (0, 2, 1, 3)[i // 2]) for i in range(8)],
    "in pairs": [Device(i, i // 2 % 2) for i in range(8)],
}


@pytest.mark.parametrize("model", [1, 2])
@pytest.mark.parametrize("devices", LISTED.values(), ids=LISTED)
def test_every_process_feeds_its_own_part_of_a_batch(devices, model):
    rows = arranged({"data": -1, "model": model}, devices)[..., 0]
    assert (rows == rows[:, :1]).all()  # no example is split between processes
    processes = len({d.process_index for d in devices})
    np.testing.assert_array_equal(rows[:, 0], np.repeat(range(processes), len(rows) // processes))


def test_no_example_is_split_between_processes():
    for devices in LISTED.values():
        local = 8 // len({d.process_index for d in devices})
        message = f"'model' must divide the {local} devices of each process"
        with pytest.raises(ValueError, match=message):
            mesh_lib.create_mesh({"data": -1, "model": 2 * local}, devices)


def test_processes_with_different_numbers_of_devices_are_named():
    devices = [Device(i, int(i > 2)) for i in range(8)]
    with pytest.raises(ValueError, match=r"as many devices as the others, got \{0: 3, 1: 5\}"):
        mesh_lib.create_mesh({"data": -1}, devices)


def torus(width, height, tile):
    """A TPU of width x height chips, hosts of `tile` chips each; listed host by host."""
    chips = itertools.product(range(height), range(width))
    host = {(x, y): y // tile[1] * (width // tile[0]) + x // tile[0] for y, x in chips}
    ordered = sorted(host, key=lambda at: (host[at], at[1], at[0]))
    return [Device(i, host[x, y], "tpu", "TPU v4", (x, y, 0)) for i, (x, y) in enumerate(ordered)]


@pytest.mark.parametrize(
    ("devices", "model"),
    [
        (torus(4, 4, (4, 4)), 4),
        (torus(4, 4, (4, 4)), 2),
        (torus(4, 4, (2, 2)), 2),
        (torus(2, 4, (2, 4)), 4),
        (torus(4, 8, (2, 2)), 2),
    ],
)
def test_devices_that_work_on_one_example_are_joined_by_links(devices, model):
    at = {d.id: np.array(d.coords) for d in devices}
    rows = arranged({"data": -1, "model": model}, devices)
    assert (rows[..., 0] == rows[:, :1, 0]).all()
    for row in rows[..., 1]:
        hops = [np.abs(at[a] - at[b]).sum() for a, b in itertools.pairwise(row)]
        assert max(hops) == 1, row


@pytest.mark.parametrize(
    ("processes", "message"),
    [
        ([[0, 0], [0, 1], [1, 1]], r"row 1 of its axis 'data' lies on the processes \[0, 1\]"),
        ([[0, 1]] * 4, r"row 0 .* processes \[0, 1\].*use create_mesh"),
        ([[1, 1], [0, 0]], r"rows .* belong to the processes \[1, 0\]; .* in their order"),
        ([[0], [1], [0], [1]], r"belong to the processes \[0, 1, 0, 1\]"),
        ([[0], [0], [1]], r"belong to the processes \[0, 0, 1\]; each must have as many"),
    ],
)
def test_a_mesh_that_processes_would_feed_differently_is_refused(processes, message):
    numbers = itertools.count()
    grid = np.array([[Device(next(numbers), p) for p in row] for row in processes], object)
    names = ("data", "model")
    shape = dict(zip(names, grid.shape, strict=True))
    mesh = types.SimpleNamespace(devices=grid, axis_names=names, shape=shape)
    with pytest.raises(ValueError, match=message):
        mesh_lib.check_processes(mesh)
    with pytest.raises(ValueError, match=message):
        sharding.Placement(mesh, "tensor")


def test_a_batch_and_its_parts_must_divide_over_the_devices():
    mesh = types.SimpleNamespace(shape={"data": 8})
    mesh_lib.check_batch(64, mesh)
    mesh_lib.check_batch(64, mesh, accumulate=8)
    with pytest.raises(ValueError, match="batch_size=60 must be divisible by the 8 devices"):
        mesh_lib.check_batch(60, mesh)
    with pytest.raises(ValueError, match="batch_size=72 .* 8 devices .* x accumulate=2"):
        mesh_lib.check_batch(72, mesh, accumulate=2)


def test_a_batch_arrives_unchanged():
    mesh = mesh_lib.create_mesh({"data": -1})
    batch = {"image": np.arange(8.0).reshape(4, 2), "label": np.arange(4)}
    placed = sharding.shard_batch(batch, mesh)
    jax.tree.map(np.testing.assert_array_equal, placed, batch)
