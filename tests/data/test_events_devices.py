"""A training step on recordings, [B, T, H, W, C], on eight devices is that of one."""

import json
import pathlib
import subprocess
import sys

import pytest
import two_processes

SCRIPT = pathlib.Path(__file__).with_name("recordings_on_devices.py")


@pytest.fixture(scope="module")
def told():
    """What recordings_on_devices.py saw."""
    environment = two_processes.environment(devices=8)
    environment["PYTHONPATH"] = f"{SCRIPT.parents[1]}:{environment.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_eight_devices_step_as_one_does(told):
    """Weights, statistics and averages, which are of size one: sums have 15 digits."""
    one, found = told["one"], told["eight"]
    assert found["loss"] == pytest.approx(one["loss"], rel=1e-12)
    assert found["away"].keys() == one["moved"].keys()
    assert max(found["away"].values()) < 1e-12, found["away"]


def test_all_layers_learn_in_that_step(told):
    learn = ("['kernel']", "['scale']", "['mean']", "['var']", "['time_step_score']")
    moved = {name: by for name, by in told["one"]["moved"].items() if name.endswith(learn)}
    assert len(moved) > 50
    assert min(moved.values()) > 1e-6, moved
