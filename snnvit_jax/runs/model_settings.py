"""The settings of a model in a configuration: what its family has, whatever type that is.

Families differ in what they have (several stages have several widths), so `config.model` takes
numbers, names, truth values and tuples alike; `validation` and the family say what fits.
"""

import abc
import ast
import numbers

from absl import flags
from ml_collections import config_dict, config_flags

from snnvit_jax.models import FAMILIES, family_of
from snnvit_jax.neurons import LIFNeuron, QuantizedNeuron, describe

# What holds for those settings of a neuron that the published one does not have.
_NEURON = describe(QuantizedNeuron()) | describe(LIFNeuron())


class Setting(abc.ABC):  # noqa: B024, nothing derives from it: types are registered below
    """The type of a key that takes a number, a text, a truth value or a tuple."""


for _kind in (numbers.Number, str, tuple, list):
    Setting.register(_kind)


class _Parser(flags.ArgumentParser):
    """Reads `8`, `(1, 2)`, `1,2`, `True` or a text from the command line."""

    syntactic_help = "a number, a text, True or False, or a tuple such as (1, 2)"

    def parse(self, argument):
        """Returns the value that a text stands for; another value as it is."""
        if not isinstance(argument, str):
            return argument
        try:
            return ast.literal_eval(argument)
        except (SyntaxError, ValueError):
            return argument

    def flag_type(self):
        return "setting"


config_flags.register_flag_parser_for_type(Setting, _Parser())


def setting():
    """Returns a key without a value, which then takes any `Setting`: as published until set."""
    return config_dict.FieldReference(None, field_type=Setting)


def use_model(config, name):
    """Chooses a model, with its own neurons, and adds what its family has besides the usual keys.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      name: of the model.

    Raises:
      ValueError: for an unknown name.
    """
    config.model.name = name
    for key in sorted(set(family_of(name).settings) - set(config.model)):
        config.model[key] = setting()
    config.model.neuron.update(dict.fromkeys(config.model.neuron))


def neuron_of(settings):
    """Returns {setting: value} of a model's neurons: as published where nothing is given.

    Args:
      settings: `config.model`, with the name of a model that is known.
    """
    published = describe(family_of(settings.name).published_neuron(settings.name))
    known = _NEURON | {key: published[key] for key in set(published) & set(settings.neuron)}
    return known | {key: value for key, value in settings.neuron.items() if value is not None}


def add_known(config, model):
    """Adds keys for those settings of a model that any family has besides the usual ones.

    Args:
      config: a ConfigDict; changed in place.
      model: {key: value} of another one's model.
    """
    known = {key for family in FAMILIES.values() for key in family.settings}
    for key in sorted(known & set(model) - set(config.model)):
        config.model[key] = setting()


def of_family(settings, usual):
    """Returns the settings of a model that its family has, with name and time steps.

    A key that the family has no use for is left out while it has its usual value.

    Args:
      settings: `config.model`.
      usual: {key: value} of `config.default_config`; other keys are None usually.

    Raises:
      ValueError: naming a setting that the family does not know, or an unknown model.
    """
    known = {"name", "time_steps", *family_of(settings.name).settings}
    found = settings.to_dict()
    unknown = sorted(key for key in set(found) - known if found[key] != usual.get(key))
    if unknown:
        given = ", ".join(f"model.{key}={found[key]!r}" for key in unknown)
        raise ValueError(
            f"{given}: not among the settings of {settings.name!r}: {', '.join(sorted(known))}"
        )
    found["neuron"] = neuron_of(settings)
    return {key: value for key, value in found.items() if key in known}
