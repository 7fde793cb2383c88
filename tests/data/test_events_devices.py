"""A training step on recordings, [B, T, H, W, C], on eight devices is that of one."""

import pytest
import two_processes


@pytest.fixture(scope="module")
def told():
    """What recordings_on_devices.py saw."""
    return two_processes.told_by("data/recordings_on_devices.py")


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
