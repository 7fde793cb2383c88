"""From the folder of a finished run to a trained network that anyone can load, with its card."""

import importlib.metadata
import pathlib
import tempfile

import jax
import numpy as np
from flax import traverse_util

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
from snnvit_jax.weights.averaging import mean_variables

MOST_BYTES = 3_000_000  # of a network that comes with the package
_VERSIONS = ("snnvit_jax", "jax", "flax", "numpy")


def publish(workdir, target, history, which=LAST, split=None, others=()):
    """Writes a run's network as `pretrained.folder` has it, measured with the file as loaded.

    With others, it is the mean of their weights (`averaging.mean_variables`), which costs no more
    than one. It is measured elsewhere before anything is written: an earlier network stays as it
    was if this is interrupted.

    Args:
      workdir: path of the run's folder; its training must have ended.
      target: folder to write to; its name is that of the network.
      history: what the run does not know of itself: "commit", "command", "hardware", "note", texts.
      which: checkpoint to take, "last" or "best".
      split: of the run's data to measure on; None for the run's own held-out split.
      others: paths of further runs to average with, of the same model and start, on the same data.

    Returns:
      What config.json then holds, but for its format and the SHA-256 of the weights.

    Raises:
      FileNotFoundError: if a folder holds no run.
      ValueError: if a training has not ended, there is no such checkpoint or split, its classes
        are not those of the data, another run cannot be averaged with it, the target holds a run or
        other files, or the weights are too large for a network inside the package.
    """
    is_best(which)  # refuses another word before the data are looked at
    target = expanded(target).absolute()
    pretrained.check_free(target)
    runs = [_finished(path) for path in (workdir, *others)]
    _check_alike(runs)
    folders, (run, *_) = zip(*runs, strict=True)
    source = _source(run, split)
    about = _about(target.name, run) | {"trained": _trained(runs, history, which)}
    variables = _variables(folders, which)
    if target.parent == catalogue.NETWORKS:
        _check_size(target, pretrained.packed(variables))
    with tempfile.TemporaryDirectory() as place:
        written = pathlib.Path(place) / target.name
        pretrained.write(written, about, variables)
        about |= {"measured": _measure(pretrained.load_pretrained(written), run, source)}
    pretrained.write(target, about, variables)
    return about


def _finished(path):
    """(folder, built run) of a run that has ended."""
    folder = Workdir(path)
    settings = folder.required_config()
    if not folder.is_finished():
        raise ValueError(f"the training in {folder.path} has not ended; run it to its end first")
    run = build(settings, to_train=False)
    classes.check(folder, run.train_source.class_names)
    return folder, run


def _check_alike(runs):
    """Raises ValueError for the same run twice, one of another model, or with other examples."""
    (first, run), *others = runs
    paths = [folder.path for folder, _ in runs]
    wanted = _what_must_agree(run)
    for place, (folder, other) in enumerate(others, 1):
        if folder.path in paths[:place]:
            raise ValueError(f"{folder.path} is given twice: a mean is of different trainings")
        own = _what_must_agree(other)
        differing = [key for key in wanted | own if own.get(key) != wanted.get(key)]
        if differing:
            key = differing[0]
            raise ValueError(
                f"{folder.path} cannot be averaged with {first.path}: its {key} is "
                f"{own.get(key)!r}, not {wanted.get(key)!r}"
            )


def _what_must_agree(run):
    data = {key: run.config.data[key] for key in ("name", "train_split", "eval_split")}
    return traverse_util.flatten_dict(_about("", run) | {"data": data}, sep=".")


def _variables(folders, which):
    """What the network consists of, on the host: of one run, or the mean of several."""
    loaded = {
        str(folder.path): jax.device_get(load_variables(folder.checkpoints, which))
        for folder in folders
    }
    return mean_variables(loaded) if len(loaded) > 1 else next(iter(loaded.values()))


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


def _trained(runs, history, which):
    _, run = runs[0]
    of_each = [_length(*each, which) for each in runs]
    step, epochs, measured, _ = of_each[0]
    trained = {
        "config": _without_places(run.config).to_dict(),
        "epochs": epochs,
        "checkpoint": results.describe_choice(step, measured, split=None),
        "hours": sum(hours for *_, hours in of_each),
        "versions": {name: _version(name) for name in _VERSIONS},
        **history,
    }
    if len(runs) > 1:
        seeds = [run.config.seed for _, run in runs]
        each = [f"seed {seed}, {x[1]:.4g} epochs" for seed, x in zip(seeds, of_each, strict=True)]
        trained["mean_of"] = f"the weights of {len(runs)} trainings: {'; '.join(each)}"
    return trained


def _length(folder, run, which):
    """(step, epochs, what chose it, hours) of a run's checkpoint."""
    finished = finished_checkpoints(folder.checkpoints)
    if is_best(which):
        step, _, measured = best.choose(finished, folder.checkpoints)
    else:
        step, measured = finished[-1][0], None
    hours = results.seconds(folder.read_metrics()) / 3600
    return step, step / run.steps_per_epoch, measured, hours


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
