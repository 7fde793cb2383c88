import json
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from snnvit_jax import sharding

EIGHT = [types.SimpleNamespace(id=i) for i in range(8)]


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ({"data": -1}, {"data": 8}),
        ({"data": -1, "model": 2}, {"data": 4, "model": 2}),
        ({"data": 8, "model": 1}, {"data": 8, "model": 1}),
    ],
)
def test_the_mesh_takes_all_devices(monkeypatch, axes, shape):
    monkeypatch.setattr(
        sharding, "Mesh", lambda d, names: dict(zip(names, np.shape(d), strict=True))
    )
    assert sharding.create_mesh(axes, EIGHT) == shape


@pytest.mark.parametrize(
    "axes", [{"data": 3}, {"data": -1, "model": 3}, {"data": -1, "model": -1}, {"data": 0}]
)
def test_axes_that_do_not_fit_are_named(axes):
    with pytest.raises(ValueError, match=f"mesh={axes} does not fit 8 devices"):
        sharding.create_mesh(axes, EIGHT)


def test_a_batch_must_divide_over_the_devices():
    mesh = types.SimpleNamespace(shape={"data": 8})
    sharding.check_batch(64, mesh)
    with pytest.raises(ValueError, match="batch_size=60 must be divisible by the 8 devices"):
        sharding.check_batch(60, mesh)


def test_a_batch_arrives_unchanged():
    mesh = sharding.create_mesh({"data": -1})
    batch = {"image": np.arange(8.0).reshape(4, 2), "label": np.arange(4)}
    placed = sharding.shard_batch(batch, mesh)
    jax.tree.map(np.testing.assert_array_equal, placed, batch)


@pytest.fixture(scope="module")
def one_and_eight():
    script = pathlib.Path(__file__).with_name("eight_devices.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_eight_devices_train_as_one_does(one_and_eight):
    one, eight = one_and_eight["1"], one_and_eight["8"]
    np.testing.assert_allclose(eight["losses"], one["losses"], rtol=1e-4)
    np.testing.assert_allclose(eight["parameters"], one["parameters"], rtol=1e-5)


def test_a_sharded_step_gathers_no_activation(one_and_eight):
    assert one_and_eight["8"]["all_gathers"] == 0
    assert one_and_eight["8"]["all_reduces"] > 0
