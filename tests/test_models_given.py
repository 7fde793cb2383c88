"""What is no model, no variables or no number where one is expected is said to be none."""

import numpy as np
import pytest

import snnvit_jax as snn
from snnvit_jax import energy

NAME = "spikformer_4_256"
IMAGES = np.zeros((1, 8, 8, 3), np.float32)
USES = {
    "deploy": lambda model: snn.deploy(model, {"params": {}}),
    "from_torch": lambda model: snn.convert.from_torch(model, {}),
    "energy_report": lambda model: snn.energy_report(model, {"params": {}}, IMAGES),
    "layer_names": snn.layer_names,
}


@pytest.mark.parametrize("use", USES)
def test_what_is_no_model_is_told_how_to_make_one(use):
    with pytest.raises(ValueError, match=rf"^model='{NAME}' must be .*snn.create_model\('{NAME}'"):
        USES[use](NAME)
    for given in (None, 3, {}, type(snn.create_model(NAME))):
        with pytest.raises(ValueError, match=r"^model=.* must be a model, .*create_model\(NAME"):
            USES[use](given)


@pytest.mark.parametrize("given", [None, NAME, 3, [IMAGES]])
def test_what_are_no_variables_is_told(given):
    model, told = snn.create_model(NAME), rf"got {type(given).__name__}; .*snn\.create_model"
    with pytest.raises(ValueError, match=told):
        snn.deploy(model, given)
    with pytest.raises(ValueError, match=told):
        snn.energy_report(model, given, IMAGES)


@pytest.mark.parametrize("name", ["mac", "ac", "membrane"])
def test_an_energy_is_a_number(name):
    for value in ("1", -1.0, float("nan"), float("inf"), True, [1.0]):
        with pytest.raises(ValueError, match=rf"^{name}=.* must be .*an energy in pJ, a number"):
            energy.Accounting(**{name: value})
    assert getattr(energy.Accounting(**{name: np.float32(0.5)}), name) == 0.5


@pytest.mark.parametrize("name", ["count_membrane", "repeat_embedding"])
def test_a_flag_of_the_conventions_is_a_truth_value(name):
    for value in ("no", 1, None):
        with pytest.raises(ValueError, match=f"^{name}=.* must be True or False"):
            energy.Accounting(**{name: value})
    assert getattr(energy.Accounting(**{name: np.True_}), name)


def test_an_unknown_convention_is_named():
    told = "^unknown convention 'integer'; did you mean 'integers'"
    with pytest.raises(ValueError, match=told):
        energy.Accounting().changed(integer="multiply")
    with pytest.raises(ValueError, match=told):
        snn.energy_report(snn.create_model(NAME), {"params": {}}, IMAGES, integer="multiply")
