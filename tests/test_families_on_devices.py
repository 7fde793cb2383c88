"""Families of several stages are trained by eight devices, divided in both ways, as by one.

Those of one stage share the rules by which Spikformer is divided; it has test_sharding.py.
"""

import families_on_devices
import numpy as np
import pytest
import two_processes

import snnvit_jax as snn
from snnvit_jax.distributed.sharding import Placement
from snnvit_jax.models.single_stage import SingleStageConfig, tensor_rules

FAMILIES = dict(snn.models.FAMILIES)  # without what tests register


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gradients")


@pytest.fixture(scope="module")
def told(folder):
    """What families_on_devices.py saw."""
    return two_processes.told_by("families_on_devices.py", folder)


def test_every_family_is_here():
    one_stage = {n for n, f in FAMILIES.items() if issubclass(f.config, SingleStageConfig)}
    assert one_stage | {*families_on_devices.SMALL} == set(FAMILIES)
    divided = {name: family.tensor_rules for name, family in FAMILIES.items()}
    assert all(divided[name] in (tensor_rules("fc"), tensor_rules("mlp")) for name in one_stage)


@pytest.mark.parametrize("family", families_on_devices.SMALL)
def test_gradients_are_those_of_one_device(folder, told, family, x64):
    model, variables, batch = families_on_devices.setting_of(family)
    found = families_on_devices.gradients(
        variables["params"], variables["batch_stats"], batch, model=model, placement=Placement()
    )
    expected = families_on_devices.flat(*found)
    with np.load(folder / f"{family}.npz") as file:
        assert set(file) == set(expected)
        for name, value in expected.items():
            rounding = 1e-10 * (1 + np.abs(value).max())  # of sums whose terms are as large
            np.testing.assert_allclose(file[name], value, 1e-8, rounding, err_msg=name)
    moved = [name for name, value in expected.items() if name.endswith("kernel") and value.any()]
    assert len(moved) > 10


# XLA does not divide convolutions in groups: it gathers the hidden channels of SpikingResformer.
@pytest.mark.parametrize("family", [f for f in families_on_devices.SMALL if "res" not in f])
def test_weights_are_gathered_over_data_alone_and_no_activation_is(told, family):
    gathers = [shape for kind, shape in told[family]["collectives"] if kind != "all-reduce"]
    assert sorted(gathers) == sorted(told[family]["gathered"])
    assert gathers
