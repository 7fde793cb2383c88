"""Finished networks, ready to be used on files: of a run, an exported file, or a trained network.

Whatever a network comes from, it ends as a `deployment.Deployed` whose `about` says the names of
its classes and how files are read. A further origin is one more function that returns such a one,
and a line in `open_network`.
"""

import os

from snnvit_jax import pretrained
from snnvit_jax.checkpoints.checkpoints import load_variables
from snnvit_jax.common.paths import expanded
from snnvit_jax.data import inputs
from snnvit_jax.data.sources import EVENT_SETS
from snnvit_jax.deployment import deploy, load_deployed
from snnvit_jax.models import family_of
from snnvit_jax.models.parts import image_channels
from snnvit_jax.runs import classes, initial
from snnvit_jax.runs.experiment import model_of
from snnvit_jax.runs.workdir import Workdir
from snnvit_jax.weights.fitting import head_of


def open_network(place):
    """Returns a network of whatever origin as a `Deployed`.

    Args:
      place: a run's folder, a file that `Deployed.save` wrote, or a trained network: its name
        (one of `list_pretrained()`, or that after "pretrained:") or its folder. A path object is
        never a name.

    Raises:
      FileNotFoundError: if there is nothing there.
      ValueError: if it holds no network, or not how its images are prepared; or for a name that a
        folder in the working directory has too.
    """
    is_name = isinstance(place, str) and place in pretrained.list_pretrained()
    network = place if is_name else initial.network_at(place)
    if network is not None:
        return _of_pretrained(pretrained.load_pretrained(network))
    path = expanded(place)
    if os.path.isdir(path):  # is_dir of a long name raises
        return open_run(path)
    if os.path.isfile(path):
        return _with_input(load_deployed(path), path)
    raise FileNotFoundError(
        f"{str(place)!r} is neither a run's folder nor a file of a deployed model (.snn), nor a "
        f"trained network that comes with the package: {', '.join(pretrained.list_pretrained())}"
    )


def open_run(path):
    """Returns the network of a run's newest checkpoint as a `Deployed`.

    Args:
      path: of the run's folder, whatever it is called.

    Raises:
      ValueError: if it holds no run, or no checkpoint that can be read.
    """
    folder = Workdir(path)
    config = folder.read_config()
    if config is None:
        raise ValueError(f"the folder {path} holds no run: there is no config.json in it")
    variables = load_variables(folder.checkpoints)
    head = head_of(variables["params"], family_of(config.model.name).head)
    count = head["kernel"].shape[-1]
    model = model_of(config.model, count, config.data.image_size)
    return deploy_run(config, model, variables, classes.read(folder))


def deploy_run(config, model, variables, class_names):
    """Returns the network of a run, with everything that files need to be read.

    Args:
      config: a ConfigDict, validated.
      model: its model.
      variables: {"params", "batch_stats"} on the host.
      class_names: in the order of the logits.

    Returns:
      A `Deployed`.
    """
    channels = image_channels(model.config, variables["params"])
    reading = inputs.input_of(config.data, config.model.time_steps, channels)
    return deploy(
        model,
        variables,
        recordings=config.data.name in EVENT_SETS,
        classes=class_names,
        reading=inputs.described(reading),
    )


def input_of(deployed):
    """Returns how a network's files are read, an `inputs.ImageInput` or `inputs.RecordingInput`.

    Args:
      deployed: from `open_network`.
    """
    return inputs.from_description(deployed.about["reading"])


def class_names_of(deployed):
    """Returns the names of a network's classes; their numbers, where no names are known.

    Args:
      deployed: a `Deployed`.
    """
    count = deployed.about["config"]["num_classes"]
    return deployed.about.get("classes") or [str(number) for number in range(count)]


def _of_pretrained(network):
    reading = network.about["reading"]
    return deploy(
        network.model,
        network.variables,
        recordings=reading["kind"] == inputs.RecordingInput.kind,
        classes=network.classes,
        reading=reading,
    )


def _with_input(deployed, path):
    if "reading" not in deployed.about:
        raise ValueError(
            f"{str(path)!r} does not say how images are prepared for it: export its run again "
            "(--workdir=DIR --mode=export), or give the run's folder"
        )
    return deployed
