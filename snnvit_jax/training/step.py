"""One training step, as a pure function of a state and a batch.

A batch is {"image": [B, H, W, C], or [B, T, H, W, C] of recordings, "label": [B] int32, "mask": [B]
bool}; the mask is False for gaps: damaged images, and what fills up the last batch of an
evaluation. Images are whole numbers, for the step to normalise, or normalised, floating point. A
training batch that has no gaps needs no mask (see `training.gaps`); it may have "erased" [B, 4]
int32 (see `training.erasing`) and "replaced" [B] bool, True where an example comes in place of a
damaged one, which is only counted.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import optax

from snnvit_jax.common import values
from snnvit_jax.common.pixels import ERASING_FILLS, Normalization, normalised
from snnvit_jax.common.variables import params_of
from snnvit_jax.distributed.sharding import Placement
from snnvit_jax.layers.head import STEP_LOGITS
from snnvit_jax.time_steps import masks
from snnvit_jax.training import gaps, nonfinite
from snnvit_jax.training.distillation import Distillation
from snnvit_jax.training.erasing import erase
from snnvit_jax.training.leaves import per_leaf
from snnvit_jax.training.mixing import Mixing, mix
from snnvit_jax.training.objective import Objective
from snnvit_jax.xla import backends, kernels

TRAINABLE = ("all", "scores")
_NOISE = 1000  # a number that no key for mixing has: what is erased does not change the mixing


class TrainState(flax.struct.PyTreeNode):
    """Everything that a training step changes.

    Attributes:
      step: training steps done, those taken back included, int32 scalar; the clock of everything
        that changes as training goes on.
      params: of the model, scores included, float32.
      batch_stats: running statistics of its normalisations, float32.
      opt_state: of the optimiser.
      penalty_weight: present weight of the time steps in the objective, float32 scalar.
      skipped: steps taken back so far because their numbers were not finite, int32 scalar.
      average: {"params", "batch_stats"} averaged over past steps; None without averaging.
    """

    step: jax.Array
    params: dict
    batch_stats: dict
    opt_state: optax.OptState
    penalty_weight: jax.Array
    skipped: jax.Array
    average: dict | None = None

    @property
    def variables(self):
        """The model's variables as trained: {"params", "batch_stats"}."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def eval_variables(self):
        """The variables to evaluate and keep: the average if there is one."""
        return self.variables if self.average is None else self.average


@dataclasses.dataclass(frozen=True)
class Procedure:
    """How a training step is taken.

    Attributes:
      model: a Linen module from `create_model`.
      optimizer: an optax transformation; one that takes extra arguments is given `step`, the
        training steps done, and `scores_learn`, whether the update of the scores will be kept.
      objective: what is minimised.
      normalization: of images that come as whole numbers; None if they come normalised.
      erasing_fill: see `erasing.erase`.
      mixing: how examples are mixed.
      distillation: the teacher that is followed; None for none.
      accumulate: parts of a batch that are computed one after the other, to save memory, >= 1.
      trainable: "all", or "scores" if the optimizer leaves everything else as it is: then the
        running statistics stay too, and the model computes as in inference.
      average_decay: of the exponential moving average of the variables, in [0, 1), at most
        0.999999; None for none.
      seed: of everything random inside a step.
      placement: where the state is kept and computed with.
      kernels: "gpu" (on one device) or "tpu" writes the program as that accelerator takes it best,
        None leaves that to the compiler; see `xla.kernels`.

    Raises:
      ValueError: naming a value that does not fit.
    """

    model: object
    optimizer: optax.GradientTransformation
    objective: Objective = dataclasses.field(default_factory=Objective)
    normalization: Normalization | None = None
    erasing_fill: str = "zero"
    mixing: Mixing = dataclasses.field(default_factory=Mixing)
    distillation: Distillation | None = None
    accumulate: int = 1
    trainable: str = "all"
    average_decay: float | None = None
    seed: int = 0
    placement: Placement = dataclasses.field(default_factory=Placement)
    kernels: str | None = None

    def __post_init__(self):
        values.optional(values.one_of(kernels.MODES)).check("kernels", self.kernels)
        values.whole(1).check("accumulate", self.accumulate)
        values.one_of(ERASING_FILLS).check("erasing_fill", self.erasing_fill)
        values.one_of(TRAINABLE).check("trainable", self.trainable)
        values.optional(values.number(0, 0.999999)).check("average_decay", self.average_decay)


def create_state(procedure, key, image_shape):
    """Returns the state before the first step.

    Args:
      procedure: a `Procedure`.
      key: typed PRNG key of the initial values.
      image_shape: (H, W, C) of one image, (T, H, W, C) of a recording.
    """
    variables = procedure.model.init(key, jnp.zeros((1, *image_shape)))
    return state_from_variables(procedure, variables)


def state_from_variables(procedure, variables):
    """Returns the state before the first step, from given variables.

    Args:
      procedure: a `Procedure`.
      variables: {"params", "batch_stats"} of its model.

    Raises:
      ValueError: for what are no variables.
    """
    params = params_of(variables)
    objective = procedure.objective
    start = objective.time_step_penalty if objective.target_time_steps is None else 0
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=procedure.optimizer.init(params),
        penalty_weight=jnp.float32(start),
        skipped=jnp.zeros((), jnp.int32),
        # A copy: the buffers of a state are donated, each only once.
        average=None if procedure.average_decay is None else jax.tree.map(jnp.copy, variables),
    )


def loss_fn(params, batch_stats, state, batch, key, procedure):
    """Returns the objective on a batch, and what is worth keeping of its computation.

    What spikes cost is in its gradient only (`spike_price`), not in its value.

    Args:
      params: of the model.
      batch_stats: running statistics before this batch.
      state: the `TrainState`; its step and penalty weight are read.
      batch: {"image", "label", "mask", "target" [B, K] probabilities, "weight" [B] of the losses
        in their mean}, without gaps, and "teacher" [B, K] logits if there is one.
      key: typed PRNG key of stochastic depth.
      procedure: a `Procedure`.

    Returns:
      (loss, (new batch_stats, metrics)).
    """
    model, objective = procedure.model, procedure.objective
    prices = objective.price_variables(len(batch["image"]))
    variables = {"params": params, "batch_stats": batch_stats, **prices}
    logits, step_logits, batch_stats = _forward(variables, batch["image"], key, procedure)
    losses = objective.losses(logits, step_logits, batch["target"])
    mask, count = batch["mask"], jnp.sum(batch["mask"])
    penalty = masks.time_step_penalty(
        params, objective.budget(state.step, model.config.time_steps), objective.estimator
    )
    correct = (jnp.argmax(logits, -1) == batch["label"]) * mask
    metrics = {
        "loss": (jnp.sum(losses * mask), count),
        "accuracy": (jnp.sum(correct), count),
        "time_step_excess": (penalty, 1.0),
        "penalty_weight": (state.penalty_weight, 1.0),
        "average_time_steps": (masks.average_time_steps(params), 1.0),
    }
    if procedure.distillation is not None:
        agreed = (jnp.argmax(logits, -1) == jnp.argmax(batch["teacher"], -1)) * mask
        metrics["teacher_agreement"] = (jnp.sum(agreed), count)
        losses = procedure.distillation.losses(losses, logits, batch["teacher"])
    loss = jnp.mean(losses * batch["weight"]) + state.penalty_weight * penalty
    return loss, (batch_stats, metrics)


def _forward(variables, images, key, procedure):
    """Returns (logits, those of each step or None, running statistics).

    The statistics are as they were if only scores are trained.
    """
    model = procedure.model
    judged = [] if procedure.objective.step_losses is None else [STEP_LOGITS]
    if procedure.trainable == "scores":
        logits, new = model.apply(variables, images, mutable=judged)
    else:
        logits, new = model.apply(
            variables,
            images,
            train=True,
            mutable=["batch_stats", *judged],
            rngs={"drop_path": key},
        )
    steps = jax.tree.leaves(new.get(STEP_LOGITS, {}))  # of the one head there is
    return logits, steps[0] if steps else None, new.get("batch_stats", variables["batch_stats"])


@functools.partial(backends.jit, static_argnames=("procedure",), donate_argnums=0)
def train_step(state, batch, teacher=None, *, procedure):
    """Takes one optimiser step; takes it back if its numbers are not finite.

    Args:
      state: a `TrainState`; its buffers are donated, so it must not be used afterwards.
      batch: see the module.
      teacher: {"params", "batch_stats"} of the teacher, if the procedure has one.
      procedure: a `Procedure`.

    Returns:
      (new state, metrics as (sum, count)); "not_finite" is that of `nonfinite.leaf_flags`.
    """
    model, objective = procedure.model, procedure.objective
    mix_key, drop_key = jax.random.split(_step_key(procedure.seed, state.step))
    damaged = batch.get("replaced", jnp.zeros(len(batch["image"]), bool))
    batch = _prepare(batch, mix_key, state.step, teacher, procedure)
    with kernels.kernels(procedure.kernels):
        gradients, batch_stats, metrics = _gradients(state, batch, drop_key, procedure)
    metrics["damaged_images"] = (jnp.sum(damaged), 1.0)
    together = procedure.kernels in kernels.ON_ONE_DEVICE
    squares = _squares(gradients, together)
    flags = nonfinite.leaf_flags(squares, batch_stats, together)
    metrics["not_finite"] = (flags.astype(jnp.float32), 1.0)
    # One clock: the learning rate is that of `state.step`, which steps taken back count in too.
    learning = objective.scores_learn(state.step)
    updates, opt_state = optax.with_extra_args_support(procedure.optimizer).update(
        gradients, state.opt_state, state.params, step=state.step, scores_learn=learning
    )
    metrics["gradient_norm"] = (_norm(squares, gradients, learning), 1.0)
    metrics["update_norm"] = (_norm(_squares(updates, together), updates, learning), 1.0)
    params = optax.apply_updates(state.params, updates)
    params = _settle_scores(state.params, params, state.step, objective)
    new = TrainState(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        penalty_weight=objective.next_penalty_weight(state, model.config.time_steps),
        skipped=state.skipped,
    )
    new = new.replace(average=_next_average(state, new, procedure.average_decay))
    # A step whose numbers are not finite is taken back; whoever reads the metrics may stop there.
    unchanged = state.replace(step=new.step, skipped=state.skipped + 1)
    new = jax.tree.map(functools.partial(jnp.where, nonfinite.any_flag(flags)), unchanged, new)
    return procedure.placement.keep(new), metrics


def _squares(tree, together):
    """The sum of squares of each leaf."""
    leaves = jax.tree.leaves(tree)
    return per_leaf(lambda leaf: jnp.square(leaf.astype(jnp.float32)), jnp.sum, leaves, together)


def _norm(squares, tree, learning):
    """The norm of a tree from the squares of its leaves, without scores that may not move."""
    squares = jax.tree.unflatten(jax.tree.structure(tree), squares)
    counted = {name: jnp.where(learning, x, 0) for name, x in masks.scores(squares).items()}
    return jnp.sqrt(sum(jax.tree.leaves(masks.replace_scores(squares, counted))))


def _step_key(seed, step):
    return jax.random.fold_in(jax.random.key(seed), step)


def _prepare(batch, key, step, teacher, procedure):
    """Fills gaps, normalises, erases, mixes; adds targets, weights, a teacher's logits."""
    if "mask" in batch:
        batch = gaps.fill(batch)
    mask = batch.get("mask", jnp.ones(len(batch["image"]), bool)).astype(jnp.float32)
    targets = jax.nn.one_hot(batch["label"], procedure.model.config.num_classes)
    targets = optax.smooth_labels(targets, procedure.objective.label_smoothing)
    images = normalised(batch["image"], procedure.normalization)
    if "erased" in batch:
        noise_key = jax.random.fold_in(key, _NOISE)
        images = erase(noise_key, images, batch["erased"], procedure.erasing_fill)
    images, targets = mix(key, images, targets, step, procedure.mixing)
    batch = {"image": images, "label": batch["label"], "target": targets}
    batch |= {"mask": mask, "weight": gaps.weights(mask)}
    if procedure.distillation is not None:
        batch["teacher"] = procedure.distillation.logits(teacher, images)
    return batch


def _gradients(state, batch, key, procedure):
    """Returns (gradients, new batch_stats, metrics), computed part after part."""
    params = procedure.placement.gather(state.params)

    def gradient(batch_stats, batch, key):
        with procedure.placement.in_view():
            gradients, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(
                params, batch_stats, state, batch, key, procedure
            )
        # Whole first: the compiler would split the activations as the gradients are kept.
        gradients = procedure.placement.gather(gradients)
        return procedure.placement.keep(gradients), batch_stats, metrics

    parts = procedure.accumulate
    if parts == 1:
        return gradient(state.batch_stats, batch, key)

    divided = {"batch": _divide(batch, parts), "key": jax.random.split(key, parts)}

    def add_part(carry, part):
        total, batch_stats = carry
        gradients, batch_stats, metrics = gradient(batch_stats, **part)
        return (jax.tree.map(jnp.add, total, (gradients, metrics)), batch_stats), None

    gradients, _, metrics = jax.eval_shape(
        lambda part: gradient(state.batch_stats, **part), jax.tree.map(lambda x: x[0], divided)
    )
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (gradients, metrics))
    (total, batch_stats), _ = jax.lax.scan(add_part, (zeros, state.batch_stats), divided)
    gradients, metrics = total
    return jax.tree.map(lambda g: g / parts, gradients), batch_stats, metrics


def _divide(batch, parts):
    """Splits a batch into [parts, B / parts, ...], every part spread over all devices."""
    return jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(len(x) // parts, parts, *x.shape[1:]), 1, 0), batch
    )


def _settle_scores(old_params, params, step, objective):
    """Projects the updated scores while they learn, and takes their update back otherwise."""
    old = masks.scores(old_params)
    floor = objective.floor(old_params, step)
    projected = masks.project_scores(
        params, objective.min_time_steps, floor, objective.estimator, objective.groups
    )
    new = masks.scores(projected)
    learning = objective.scores_learn(step)
    return masks.replace_scores(
        params, {name: jnp.where(learning, new[name], old[name]) for name in new}
    )


def _next_average(old, new, decay):
    """Moves the average on; the scores in it are the present ones, so that the masks are.

    At first the average reaches less far back, so that it soon forgets the initial values: the rule
    min(decay, (1 + t) / (10 + t)) of TensorFlow's ExponentialMovingAverage.
    """
    if decay is None:
        return None
    decay = jnp.minimum(decay, (1 + old.step) / (10 + old.step))
    # Written so that what does not change is its own average, to the last bit.
    average = jax.tree.map(lambda a, x: a + (1 - decay) * (x - a), old.average, new.variables)
    present = masks.scores(new.params)
    return average | {"params": masks.replace_scores(average["params"], present)}


@jax.jit
def is_finite(state):
    """Returns whether every parameter and running statistic of a state is finite.

    Args:
      state: a `TrainState`.
    """
    leaves = jax.tree.leaves(state.variables)
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
