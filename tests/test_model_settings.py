"""What a configuration says of a model's neurons: as published until something else is set."""

import dataclasses
import pathlib

import pytest
from absl import flags
from ml_collections import config_flags

import snnvit_jax as snn
from snnvit_jax.models import family_of
from snnvit_jax.neurons import IFNeuron, LIFNeuron, as_neuron, describe
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs.experiment import model_of
from snnvit_jax.runs.model_settings import use_model

DIGITS = pathlib.Path(__file__).parents[1] / "configs" / "digits.py"


def neuron_for(config):
    """The neuron of the model that a configuration describes."""
    size = family_of(config.model.name).sizes[config.model.name]["image_size"]
    return model_of(config.model, 10, size).config.neuron


def named(name, **neuron):
    config = config_lib.default_config()
    config.model.name = name
    config.model.neuron.update(neuron)
    return config


@pytest.mark.parametrize("name", snn.list_models())
def test_a_name_alone_has_the_published_neurons(name):
    config = named(name)
    assert neuron_for(config) == snn.create_model(name).config.neuron
    use_model(config, name)
    assert neuron_for(config) == snn.create_model(name).config.neuron


@pytest.mark.parametrize("name", ["spikformer_4_384", "spikingformer_2_256_dvs"])
@pytest.mark.parametrize("setting", [{"reset": "soft"}, {"surrogate": "arctan"}, {"alpha": 3.0}])
def test_one_setting_leaves_the_others_as_published(name, setting):
    published = snn.create_model(name).config.neuron
    assert neuron_for(named(name, **setting)) == dataclasses.replace(published, **setting)


def test_another_model_does_not_keep_the_neurons_of_the_one_before():
    config = config_lib.default_config()
    use_model(config, "spikingformer_2_256_dvs")
    assert neuron_for(config).tau == 1.5
    use_model(config, "spikformer_4_384")
    assert neuron_for(config) == LIFNeuron()


def test_a_complete_configuration_says_what_the_neurons_are():
    config = named("spikingresformer_dvsg", tau=3.0)
    complete = config_lib.complete(config)
    assert complete.model.neuron.to_dict() == {
        **describe(snn.create_model("spikingresformer_dvsg").config.neuron),
        **{"tau": 3.0, "levels": 4},
    }
    assert neuron_for(complete) == neuron_for(config)
    assert config_lib.complete(complete) == complete
    assert set(config.model.neuron.values()) == {None, 3.0}  # not changed in place


def test_a_run_that_was_trained_without_a_leak_has_none():
    config = named("spikformer_4_384")
    config.model.neuron = config_lib.complete(config).model.neuron
    config.model.neuron.tau = None
    assert neuron_for(config_lib.from_json(config_lib.to_json(config))) == IFNeuron()


def test_a_section_of_a_configuration_is_a_neuron_too():
    published = LIFNeuron(tau=1.5)
    neuron = config_lib.default_config().model.neuron
    assert as_neuron(neuron, published) == published
    neuron.kind = "lif"
    assert as_neuron(neuron) == LIFNeuron()
    assert as_neuron({"kind": "lif", "tau": None}, published) == LIFNeuron(tau=None)
    assert as_neuron({"kind": None, "tau": None}, published) == published


def test_every_setting_comes_from_the_command_line():
    given = flags.FlagValues()
    neuron = {"kind": "plif", "tau": 1.5, "reset": "soft", "surrogate": "arctan", "alpha": 3.0}
    neuron |= {"detach_reset": False, "levels": 3, "estimator": "sigmoid"}
    argv = ["main", f"--config={DIGITS}"]
    argv += [f"--config.model.neuron.{key}={value}" for key, value in neuron.items()]
    config_flags.DEFINE_config_file("config", flag_values=given, sys_argv=argv)
    given(argv)
    config_lib.validate(given.config)
    assert config_lib.complete(given.config).model.neuron.to_dict() == neuron
