"""From the folder of a finished run to a trained network that anyone can load, with its card."""

import importlib.metadata
import pathlib
import tempfile

import jax
import numpy as np

from snnvit_jax import evaluation, pretrained
from snnvit_jax.checkpoints import LAST, best, is_best
from snnvit_jax.checkpoints.checkpoints import finished_checkpoints, load_variables
from snnvit_jax.common.paths import expanded
from snnvit_jax.data import inputs
from snnvit_jax.models import describe
from snnvit_jax.pretrained import catalogue
from snnvit_jax.runs import classes, config, results
from snnvit_jax.runs.experiment import build
from snnvit_jax.runs.workdir import Workdir

MOST_BYTES = 3_000_000  # of a network that comes with the package
_VERSIONS = ("snnvit_jax", "jax", "flax", "numpy")


def publish(workdir, target, history, which=LAST, split=None):
    """Writes a run's network as `pretrained.folder` has it, measured with the file as loaded.

    It is measured elsewhere before anything is written: an earlier network stays as it was if this
    is interrupted.

    Args:
      workdir: path of the run's folder; its training must have ended.
      target: folder to write to; its name is that of the network.
      history: what the run does not know of itself: "commit", "command", "hardware", "note", texts.
      which: checkpoint to take, "last" or "best".
      split: of the run's data to measure on; None for the run's own held-out split.

    Returns:
      What config.json then holds, but for its format and the SHA-256 of the weights.

    Raises:
      FileNotFoundError: if the folder holds no run.
      ValueError: if the training has not ended, there is no such checkpoint or split, its classes
        are not those of the data, the target holds a run or other files, or the weights are too
        large for a network inside the package.
    """
    is_best(which)  # refuses another word before the data are looked at
    folder, target = Workdir(workdir), expanded(target).absolute()
    pretrained.check_free(target)
    settings = folder.read_config()
    if settings is None:
        raise FileNotFoundError(f"{folder.path} holds no run: there is no config.json in it")
    if not folder.is_finished():
        raise ValueError(f"the training in {folder.path} has not ended; run it to its end first")
    run = build(settings, to_train=False)
    classes.check(folder, run.train_source.class_names)
    source = _source(run, split)
    about = _about(target.name, run) | {"trained": _trained(folder, run, history, which)}
    variables = jax.device_get(load_variables(folder.checkpoints, which))
    if target.parent == catalogue.NETWORKS:
        _check_size(target, pretrained.packed(variables))
    with tempfile.TemporaryDirectory() as place:
        written = pathlib.Path(place) / target.name
        pretrained.write(written, about, variables)
        about |= {"measured": _measure(pretrained.load_pretrained(written), run, source)}
    pretrained.write(target, about, variables)
    return about


def _check_size(target, content):
    if len(content) > MOST_BYTES:
        raise ValueError(
            f"{target} has {len(content):,} bytes of weights, more than the {MOST_BYTES:,} that a "
            "network of the package may have: write it elsewhere, or train a smaller one"
        )


def _about(name, run):
    model = config.family_settings(run.config.model)
    model = {
        "name": model.pop("name"),
        "num_classes": run.train_source.num_classes,
        "image_size": list(run.model.config.image_size),
        "time_steps": model.pop("time_steps"),
        "settings": {key: value for key, value in model.items() if value is not None},
    }
    channels = run.image_shape[-1]
    reading = inputs.input_of(run.config.data, run.config.model.time_steps, channels)
    return {
        "name": name,
        "description": describe(run.model),
        "model": model,
        "classes": list(run.train_source.class_names),
        "reading": inputs.described(reading),
    }


def _trained(folder, run, history, which):
    log = folder.read_metrics()
    finished = finished_checkpoints(folder.checkpoints)
    if is_best(which):
        step, _, measured = best.choose(finished, folder.checkpoints)
    else:
        step, measured = finished[-1][0], None
    return {
        "config": _without_places(run.config).to_dict(),
        "epochs": step / run.steps_per_epoch,
        "checkpoint": results.describe_choice(step, measured, split=None),
        "hours": results.seconds(log) / 3600,
        "versions": {name: _version(name) for name in _VERSIONS},
        **history,
    }


def _without_places(settings):
    """The configuration without paths, which mean nothing elsewhere; names of runs stay."""
    settings = settings.copy_and_resolve_references()
    settings.data.dir = settings.data.events.cache = None
    for part, key in ((settings, "init_from"), (settings.distillation, "teacher")):
        if part[key] is not None:
            part[key] = pathlib.PurePath(part[key]).name
    return settings


def _version(name):
    if name == "snnvit_jax":  # works from a clone too
        from snnvit_jax.version import __version__

        return __version__
    return importlib.metadata.version(name)


def _source(run, split):
    """The examples of a split, by default the run's held-out ones."""
    if split is None:
        return run.eval_source
    own = run.config.copy_and_resolve_references()
    own.data.eval_split = split
    return build(own, to_train=False).eval_source


def _measure(network, run, source):
    """What the network reaches, computed with the model and the weights as they are loaded."""
    found = evaluation.evaluate(
        network.model,
        network.variables,
        source,
        run.preprocess,
        run.loader_options,
        mesh=run.mesh,
        normalization=run.normalization,
    )
    energy = found.energy
    return {
        "split": found.split,
        "examples": found.examples,
        "correct": int(np.trace(found.confusion)),
        "accuracy": found.accuracy,
        "loss": found.loss,
        "average_time_steps": found.schedule.average,
        "modules": found.schedule.modules,
        "masks": found.schedule.as_lists(),
        "firing_rate": found.firing_rate,
        "parameters": sum(x.size for x in jax.tree.leaves(network.variables["params"])),
        "energy_uj": energy
        and {
            "add": energy.microjoule,
            "multiply": energy.under(integers="multiply").microjoule,
            "plain": energy.plain_microjoule,
        },
    }
