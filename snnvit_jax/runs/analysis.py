"""Looking into a finished run: opening it, cutting its time steps, what its layers emit.

For the studies in experiments/, which alone call it.
"""

import collections.abc
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from snnvit_jax import evaluation
from snnvit_jax.common.pixels import normalised
from snnvit_jax.data import loader
from snnvit_jax.distributed.sharding import replicate, shard_batch
from snnvit_jax.neurons import recording
from snnvit_jax.runs import classes, opening
from snnvit_jax.runs.experiment import build
from snnvit_jax.time_steps.schedule import TimeStepSchedule, with_schedule
from snnvit_jax.xla import backends

# Settings in which twins may differ: none changes a weight or the shape of a signal.
_MAY_DIFFER = {"neuron", "time_steps", "drop_path", "remat", "dtype"}


@dataclasses.dataclass(frozen=True)
class EvenlySpaced(collections.abc.Sequence):
    """Some examples of a sequence, from all over it and in its order.

    Folders of images come class by class: the first examples of them are of one class.

    Attributes:
      examples: the whole sequence.
      count: how many of them, >= 1; all of them if there are no more.
    """

    examples: collections.abc.Sequence
    count: int

    def __len__(self):
        """Number of examples."""
        return min(self.count, len(self.examples))

    def __getitem__(self, index):
        """Returns one example."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.examples[index % len(self) * len(self.examples) // len(self)]


def open_run(place, examples=None, data_dir=None, split=None):
    """Opens a finished run, or a trained network together with the data that it was trained on.

    Args:
      place: the run's folder, "pretrained:NAME", or the folder of a trained network.
      examples: how many held-out examples to look at, >= 1, from all over the split; None for all.
      data_dir: folder of the data set (`config.data.dir`); None for what the run says. A trained
        network says none.
      split: of the data to look at in place of the held-out one, for example "train[:90%]"; None
        for that.

    Returns:
      (`Experiment` whose held-out split has at most that many examples, variables of the newest
      checkpoint or of the trained network, on its mesh).

    Raises:
      FileNotFoundError: if there is neither a run nor a network.
      ValueError: if it holds no checkpoint, or does not say how it was trained, the data have other
        classes than it was trained on or no such split, or `examples` is less than 1.
    """
    if examples is not None and examples < 1:
        raise ValueError(f"{examples=} must be at least 1")
    config, names = opening.settings_of(place)
    config.data.dir = config.data.dir if data_dir is None else str(data_dir)
    config.data.eval_split = config.data.eval_split if split is None else split
    experiment = build(config, to_train=False)
    classes.check_names(place, names, experiment.eval_source.class_names)
    if examples is not None:
        experiment = with_examples(experiment, examples)
    return experiment, replicate(opening.variables_of(place), experiment.mesh)


def with_examples(experiment, count):
    """Returns an experiment whose held-out split has at most so many examples, from all over it.

    Args:
      experiment: an `Experiment`.
      count: of examples, >= 1.
    """
    source = experiment.eval_source
    source = dataclasses.replace(source, examples=EvenlySpaced(source.examples, count))
    return dataclasses.replace(experiment, eval_source=source)


def batches(experiment, description, repeats=1):
    """Yields the batches of the held-out split, normalised, on the mesh, with a progress bar.

    Args:
      experiment: an `Experiment`.
      description: in front of the progress bar.
      repeats: steps of the bar that one batch takes; the caller sends each by `bar.update()`.

    Yields:
      (batch, progress bar).
    """
    source, options = experiment.eval_source, experiment.loader_options
    count = loader.batch_count(source, options.batch_size) * repeats
    with (
        loader.eval_batches(source, experiment.preprocess, options) as loaded,
        tqdm(desc=description, total=count, leave=False) as bar,
    ):
        for batch in loaded:
            batch = shard_batch(batch, experiment.mesh)
            yield batch | {"image": _normalised(batch["image"], experiment.normalization)}, bar


_normalised = jax.jit(normalised, static_argnums=1)


def evaluate(experiment, variables):
    """Evaluates a model on the held-out split of its run.

    Args:
      experiment: an `Experiment`.
      variables: {"params", "batch_stats"} of its model.

    Returns:
      An `evaluation.Evaluation`.
    """
    return evaluation.evaluate(
        experiment.model,
        replicate(variables, experiment.mesh),
        experiment.eval_source,
        experiment.preprocess,
        experiment.loader_options,
        mesh=experiment.mesh,
        normalization=experiment.normalization,
    )


def check_architectures(one, other):
    """Raises ValueError unless two models are the same but for their neurons and time steps.

    Args:
      one: configuration of a model.
      other: configuration of another one.

    Raises:
      ValueError: naming in what they differ.
    """
    if type(one) is not type(other):
        names = tuple(type(config).__name__ for config in (one, other))
        raise ValueError(f"the runs are of different families: {names}")
    for key in sorted({field.name for field in dataclasses.fields(one)} - _MAY_DIFFER):
        found = getattr(one, key), getattr(other, key)
        if found[0] != found[1]:
            raise ValueError(f"the runs are of different architectures: {key} {found}")


def cut(schedule, module, steps):
    """Returns a schedule in which one module is silent after its first time steps.

    Args:
      schedule: a `TimeStepSchedule`.
      module: name of a module or of a block, for example "block_0/attn" or "patch_embed".
      steps: number of time steps that its layers may keep, in [0, T].

    Raises:
      ValueError: if no layer belongs to the module, or the number does not fit.
    """
    if not 0 <= steps <= schedule.time_steps:
        raise ValueError(f"{steps=} must lie between 0 and {schedule.time_steps}")
    inside = [name for name in schedule.masks if name.startswith(f"{module}/")]
    if not inside:
        raise ValueError(f"no layer belongs to {module=}; modules: {', '.join(schedule.modules)}")
    early = np.arange(schedule.time_steps) < steps
    return TimeStepSchedule(
        schedule.masks | {name: schedule.masks[name] & early for name in inside}
    )


def all_steps(schedule):
    """Returns the schedule of the same layers with every time step active.

    Args:
      schedule: a `TimeStepSchedule`.
    """
    return TimeStepSchedule({name: np.ones_like(mask) for name, mask in schedule.masks.items()})


def accuracies(experiment, variables, schedules):
    """Returns the held-out accuracy of a model under each of many schedules, in one pass.

    Args:
      experiment: an `Experiment`.
      variables: {"params", "batch_stats"} of its model, on its mesh.
      schedules: a list of `TimeStepSchedule`; equal ones are computed once.

    Returns:
      A list of numbers in [0, 1].
    """
    keys = [b"".join(mask.tobytes() for mask in schedule.masks.values()) for schedule in schedules]
    distinct = {
        key: with_schedule(variables, schedule)
        for key, schedule in zip(keys, schedules, strict=True)
    }
    correct, examples = collections.Counter(), 0
    for batch, bar in batches(experiment, "schedules", repeats=len(distinct)):
        examples += int(jnp.sum(batch["mask"]))  # a damaged image leaves a gap
        for key, changed in distinct.items():
            correct[key] += int(_correct(changed, batch, model=experiment.model))
            bar.update()
    return [correct[key] / examples for key in keys]


@functools.partial(backends.jit, static_argnames="model")
def _correct(variables, batch, *, model):
    predictions = jnp.argmax(model.apply(variables, batch["image"]), -1)
    return jnp.sum((predictions == batch["label"]) & batch["mask"])


@functools.partial(backends.jit, static_argnames="model")
def mean_activations(variables, images, *, model):
    """Returns what each spiking layer emits on average over time, neuron by neuron.

    Args:
      variables: {"params", "batch_stats"} of the model.
      images: [B, H, W, C], normalised, or recordings [B, T, H, W, C].
      model: a Linen module; of spikes, the means are multiples of 1 / T.

    Returns:
      {layer name: [B, ...]}.
    """
    seen = model.apply(variables, images, mutable=[recording.COLLECTION])[1]
    return {name: jnp.mean(x, 0) for name, x in recording.spikes(seen).items()}
