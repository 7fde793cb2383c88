"""From a configuration to everything a run is made of, checked before any long work starts."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax

from snnvit_jax import config as config_lib
from snnvit_jax import optimizer as optimizer_lib
from snnvit_jax import training
from snnvit_jax.data import loader, sources, transforms
from snnvit_jax.models import create_model
from snnvit_jax.sharding import check_batch, create_mesh, replicate


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a configuration stands for; nothing here changes during a run.

    Attributes:
      config: the configuration, validated.
      model: the Linen module.
      mesh: the devices.
      train_source: training examples.
      eval_source: held-out examples.
      preprocess: what is done to an image in evaluation.
      augment: what is done to it in training.
      image_shape: (H, W, C) after either.
      steps_per_epoch: training steps in an epoch.
      learning_rate: function of the step.
      optimizer: optax transformation.
      objective: what is minimised.
    """

    config: ml_collections.ConfigDict
    model: nn.Module
    mesh: jax.sharding.Mesh
    train_source: sources.Source
    eval_source: sources.Source
    preprocess: transforms.Preprocess
    augment: transforms.Augment
    image_shape: tuple[int, int, int]
    steps_per_epoch: int
    learning_rate: optax.Schedule
    optimizer: optax.GradientTransformation
    objective: training.Objective

    @property
    def total_steps(self):
        """Steps of the whole training."""
        return self.config.epochs * self.steps_per_epoch

    @property
    def steps_per_evaluation(self):
        """Steps from one evaluation to the next."""
        return max(1, round(self.config.eval_every_epochs * self.steps_per_epoch))

    def create_state(self):
        """Returns the training state before the first step, on the mesh."""
        create = functools.partial(
            training.create_state,
            self.model,
            self.optimizer,
            self.objective,
            image_shape=self.image_shape,
        )
        return replicate(jax.jit(create)(jax.random.key(self.config.seed)), self.mesh)


def build(config):
    """Builds an experiment, without compiling or training anything.

    Args:
      config: a ConfigDict with the keys of `config.default_config`.

    Returns:
      An `Experiment`.

    Raises:
      ValueError: naming a key or value that does not fit.
      FileNotFoundError: if the data set is not prepared.
    """
    config_lib.validate(config)
    mesh = create_mesh(config.mesh)
    check_batch(config.batch_size, mesh)
    data = config.data
    train_source, eval_source = (
        sources.load(data.name, split, data.dir) for split in (data.train_split, data.eval_split)
    )
    loader.check_fills_batch(train_source, config.batch_size)
    channels = train_source.examples[0]["image"].shape[-1]
    preprocess = _create_preprocess(data, channels)
    steps_per_epoch = len(train_source) // config.batch_size
    learning_rate = optimizer_lib.learning_rate_schedule(
        config.optimizer, config.epochs, steps_per_epoch
    )
    return Experiment(
        config=config,
        model=_create_model(config.model, train_source.num_classes, data.image_size),
        mesh=mesh,
        train_source=train_source,
        eval_source=eval_source,
        preprocess=preprocess,
        augment=transforms.Augment(preprocess, data.crop_padding, data.flip),
        image_shape=(data.image_size, data.image_size, channels),
        steps_per_epoch=steps_per_epoch,
        learning_rate=learning_rate,
        optimizer=optimizer_lib.create_optimizer(config.optimizer, learning_rate),
        objective=_create_objective(config, steps_per_epoch),
    )


def _create_model(settings, num_classes, image_size):
    settings = settings.to_dict()
    settings["dtype"] = jnp.dtype(settings["dtype"])
    return create_model(
        settings.pop("name"), num_classes, image_size, settings.pop("time_steps"), **settings
    )


def _create_preprocess(data, channels):
    for name in ("mean", "std"):
        if len(data[name]) not in (1, channels):
            raise ValueError(f"data.{name}={data[name]} needs 1 or {channels} values")
    return transforms.Preprocess((data.image_size,) * 2, tuple(data.mean), tuple(data.std))


def _create_objective(config, steps_per_epoch):
    def steps(epochs):
        return None if epochs is None else round(epochs * steps_per_epoch)

    return training.Objective(
        label_smoothing=config.optimizer.label_smoothing,
        time_step_penalty=config.time_step_penalty,
        target_time_steps=config.target_time_steps,
        min_time_steps=config.min_time_steps,
        start_step=steps(config.time_step_start_epoch),
        anneal_steps=steps(config.time_step_anneal_epochs),
        patience_steps=steps_per_epoch,
        freeze_step=steps(config.time_step_freeze_epoch),
        estimator=config.model.neuron.estimator,
    )
