"""Families of several stages train on eight devices, divided in both ways, as they do on one.

Those of one stage share the rules by which Spikformer is divided; it has test_sharding.py.
"""

import json
import pathlib
import subprocess
import sys

import families_on_devices
import jax
import numpy as np
import parallel_run
import pytest
import two_processes

import snnvit_jax as snn
from snnvit_jax.models.single_stage import SingleStageConfig, tensor_rules
from snnvit_jax.runs import initial
from snnvit_jax.runs.experiment import model_of

FAMILIES = dict(snn.models.FAMILIES)  # without what tests register


@pytest.fixture(scope="module")
def weights(tmp_path_factory, lively):
    """The folder with a file of each family's weights."""
    folder = tmp_path_factory.mktemp("weights")
    for family in families_on_devices.SMALL:
        path = folder / f"{family}.safetensors"
        config = families_on_devices.config_of(family, path)
        model = model_of(config.model, 10, config.data.image_size)
        initial.save(path, jax.device_get(lively(model, 1)))
    return folder


@pytest.fixture(scope="module")
def found(weights):
    """What families_on_devices.py saw."""
    script = pathlib.Path(families_on_devices.__file__)
    done = subprocess.run(
        [sys.executable, script, weights],
        capture_output=True,
        text=True,
        env=two_processes.environment(devices=8),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_family_is_here():
    one_stage = {n for n, f in FAMILIES.items() if issubclass(f.config, SingleStageConfig)}
    assert one_stage | {*families_on_devices.SMALL} == set(FAMILIES)
    divided = {n: f.tensor_rules for n, f in FAMILIES.items()}
    assert all(divided[name] in (tensor_rules("fc"), tensor_rules("mlp")) for name in one_stage)


@pytest.mark.parametrize("family", families_on_devices.SMALL)
def test_eight_devices_train_as_one_does(weights, found, family):
    config = families_on_devices.config_of(family, weights / f"{family}.safetensors")
    _, _, losses, _ = parallel_run.train(config, families_on_devices.STEPS)
    # A sum in another order may move a membrane potential across the threshold.
    np.testing.assert_allclose(found[family]["losses"], losses, rtol=2e-3)
    np.testing.assert_allclose(found[family]["losses"][0], losses[0], rtol=1e-5)


@pytest.mark.parametrize("family", families_on_devices.SMALL)
def test_weights_are_divided_and_no_activation_is_gathered(found, family):
    eight = found[family]
    kernels = [name for name in eight["divided"] if name.endswith("kernel")]
    assert len(kernels) >= 6  # q, k, v or what a family has, their projection, two of an MLP
    gathers = [shape for kind, shape in eight["collectives"] if kind != "all-reduce"]
    assert sorted(gathers) == sorted(eight["gathered"])
