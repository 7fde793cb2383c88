"""Evaluation of a model over a whole split, every example counted exactly once."""

import dataclasses
import functools
import warnings

import jax
import numpy as np
from tqdm import tqdm

from snnvit_jax import energy
from snnvit_jax.common.variables import check_finite, params_of
from snnvit_jax.data import loader
from snnvit_jax.distributed.sharding import shard_batch, to_host
from snnvit_jax.evaluation import metrics
from snnvit_jax.evaluation.step import eval_step
from snnvit_jax.time_steps.schedule import TimeStepSchedule

SATURATED_RATE = 0.99


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is known about a model after a pass over a split.

    Attributes:
      split: its name.
      examples: number of examples counted; damaged ones that were skipped are not.
      loss: mean cross entropy, without label smoothing.
      accuracy: in [0, 1].
      confusion: [K, K] counts by (label, prediction).
      firing_rates: {layer name: [T] share of its neurons that fire, after the mask}, in forward
        order; without spikes (ReLU), the share that is not zero.
      schedule: the model's time-step masks, in forward order.
      energy: operation counts and energy of one image; None if the model has a product that is not
        counted.
    """

    split: str
    examples: int
    loss: float
    accuracy: float
    confusion: np.ndarray
    firing_rates: dict[str, np.ndarray]
    schedule: TimeStepSchedule
    energy: energy.EnergyReport | None

    @property
    def firing_rate(self):
        """Mean firing rate over layers and all T steps."""
        return float(np.mean(list(self.firing_rates.values())))

    @property
    def dead_layers(self):
        """Names of the layers that have active time steps and no neuron that ever fires."""
        masks = self.schedule.masks
        return [n for n, rate in self.firing_rates.items() if masks[n].any() and not rate.any()]

    @property
    def saturated_layers(self):
        """Names of the layers whose neurons all fire, or nearly, at some time step."""
        return [n for n, rate in self.firing_rates.items() if rate.max() > SATURATED_RATE]


def evaluate(
    model,
    variables,
    source,
    preprocess,
    options,
    *,
    mesh,
    normalization=None,
    progress=True,
    is_stopped=None,
):
    """Evaluates a model on every example of a source.

    Args:
      model: a Linen module.
      variables: {"params", "batch_stats"} on the mesh.
      source: a `Source`.
      preprocess: function of an example.
      options: `LoaderOptions`.
      mesh: with an axis "data".
      normalization: of images that `preprocess` leaves whole numbers; None if they are normalised.
      progress: whether to show a progress bar.
      is_stopped: asked before each batch whether to stop there; the same answer in every process.

    Returns:
      An `Evaluation`, or None if it was stopped.

    Raises:
      ValueError: for what are no variables, naming a weight that is not finite, or a split of which
        no example is there.
    """
    on_host = to_host(variables, mesh)
    params_of(on_host)
    check_finite(on_host)
    if not len(source):
        raise ValueError(f"{source.split!r} holds no examples to evaluate")
    total, products = None, _are_counted(model, options.image_shape)
    step = functools.partial(eval_step, model=model, products=products, normalization=normalization)
    with loader.eval_batches(source, preprocess, options) as batches:
        count = loader.batch_count(source, options.batch_size)
        for batch in tqdm(
            batches, f"evaluate {source.split}", count, leave=False, disable=not progress
        ):
            if is_stopped is not None and is_stopped():
                return None
            seen = _on_host(to_host(step(variables, shard_batch(batch, mesh)), mesh))
            total = seen if total is None else metrics.merge(total, seen)
    return _summarise(model, on_host, source, total, options.image_shape, products)


def _are_counted(model, image_shape):
    """Whether all products of a model are; says so, once for each model, if one is not."""
    try:
        energy.model_shapes(model, image_shape)
    except ValueError as error:
        warnings.warn(f"the energy of this model is not reported: {error}", stacklevel=3)
        return False
    return True


def _on_host(seen):
    """One batch's sums as NumPy numbers that stay exact however many are added."""
    operations = energy.decode(seen.pop("operations"))
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), seen)
    return wide | {"operations": operations}


def _summarise(model, variables, source, total, image_shape, products):
    examples = int(total["metrics"]["loss"][1])
    if not examples:
        raise ValueError(f"none of the {len(source)} examples of {source.split!r} can be read")
    means = metrics.means(total["metrics"])
    active, counted = total["operations"]["active"], None
    if products:
        counted = energy.report_from_counts(
            model, variables, total["operations"], examples, image_shape
        )
    sizes = energy.neuron_counts(model, image_shape)
    names = list(sizes)  # in forward order, as sums over batches are not
    return Evaluation(
        split=source.split,
        examples=examples,
        loss=float(means["loss"]),
        accuracy=float(means["accuracy"]),
        confusion=total["confusion"].astype(np.int64),
        firing_rates={name: active[name] / examples / sizes[name] for name in names},
        schedule=TimeStepSchedule.from_variables(variables, names),
        energy=counted,
    )
