"""What a finished network knows of itself, be it a run's folder or a trained network."""

import json

from snnvit_jax import pretrained
from snnvit_jax.checkpoints.checkpoints import load_variables
from snnvit_jax.runs import classes, initial
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs.workdir import Workdir


def settings_of(place):
    """Returns (configuration of the training, names of its classes or None if they are not known).

    Args:
      place: a run's folder, "pretrained:NAME", or the folder of a trained network.

    Raises:
      FileNotFoundError: if there is neither.
      ValueError: for an unknown name, or naming what cannot be read.
    """
    network = initial.network_at(place)
    if network is not None:
        return _of_network(network)
    folder = Workdir(place)
    return folder.required_config(), classes.read(folder)


def variables_of(place):
    """Returns {"params", "batch_stats"} on the host: of a run, those of its newest checkpoint.

    Args:
      place: see `settings_of`.

    Raises:
      ValueError: for an unknown name, or if there are no weights that can be read.
    """
    network = initial.network_at(place)
    if network is not None:
        return pretrained.load_pretrained(network).variables
    return load_variables(Workdir(place).checkpoints)


def _of_network(folder):
    about = pretrained.read_config(folder)
    trained = about.get("trained")
    if not isinstance(trained, dict) or "config" not in trained:
        raise ValueError(f"{folder}/config.json does not say how the network was trained")
    try:
        config = config_lib.from_json(json.dumps(trained["config"]))
    except ValueError as error:
        raise ValueError(f"{folder}/config.json: trained.config: {error}") from error
    return config, tuple(about["classes"])
