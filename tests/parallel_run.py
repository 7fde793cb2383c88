"""One short training of which every layout of devices must give the same result."""

import jax
import numpy as np

from snnvit_jax import config as config_lib
from snnvit_jax import metrics, training
from snnvit_jax.data import loader
from snnvit_jax.experiment import build
from snnvit_jax.sharding import shard_batch, to_host

STEPS = 20


def small_config(**changes):
    """Digits for 20 steps, in which the layers give up time steps; all layouts divide its sizes."""
    config = config_lib.default_config()
    config.batch_size = 144  # ten steps in an epoch; the last batch of an evaluation is uneven
    config.epochs = 2
    config.average_decay = 0.9
    config.time_step_penalty = 2.0
    config.target_time_steps = 1.5
    config.model.time_steps = 2
    config.model.embed_dim = 32
    config.model.num_heads = 2
    config.model.depth = 1
    config.data.image_size = 8
    config.data.mean, config.data.std = (0.3,), (0.4,)
    config.optimizer.score_multiplier = 100.0
    config.optimizer.warmup_epochs = 0.1
    config.log_every_steps = 1
    config.update_from_flattened_dict(changes)
    return config


def train(config, steps=STEPS, program=False):
    """Returns (experiment, state, losses of all steps, program text or None)."""
    experiment = build(config)
    state, losses = experiment.create_state(), []
    options = experiment.loader_options
    source, augment = experiment.train_source, experiment.augment
    with loader.train_batches(source, augment, options, seed=config.seed) as batches:
        batch = shard_batch(next(batches), experiment.mesh)
        step = training.train_step.lower(state, batch, procedure=experiment.procedure).compile()
        for i in range(steps):
            state, seen = step(state, batch)
            losses.append(float(metrics.means(jax.device_get(seen))["loss"]))
            batch = shard_batch(next(batches), experiment.mesh) if i + 1 < steps else None
    return experiment, state, losses, step.as_text() if program else None


def scores(experiment, state):
    """Returns {layer name: its scores}."""
    from snnvit_jax import timesteps

    return {
        k: np.asarray(v).tolist()
        for k, v in timesteps.scores(to_host(state.params, experiment.mesh)).items()
    }
