"""One short training, of which every layout of devices must give the same result."""

import jax
import numpy as np

from snnvit_jax import training
from snnvit_jax.data import loader
from snnvit_jax.distributed.sharding import shard_batch, to_host
from snnvit_jax.evaluation import metrics
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs.experiment import build
from snnvit_jax.time_steps import masks

STEPS = 20


def small_config(weights, **changes):
    """Digits with sizes that all layouts divide, and layers that give up time steps at once."""
    config = config_lib.default_config()
    config.init_from = weights and str(weights)
    config.batch_size = 144  # ten steps in an epoch; the last batch of an evaluation is uneven
    config.epochs = 100
    config.eval_every_epochs = 2.0
    config.average_decay = 0.9
    config.time_step_penalty = 2.0
    config.target_time_steps = 1.5
    config.model.time_steps = 2
    config.model.embed_dim = 32
    config.model.num_heads = 2
    config.model.depth = 1
    config.data.image_size = 8
    config.data.mean, config.data.std = (0.3,), (0.4,)
    # Small steps: a spike more or less, by rounding, must not grow into another training.
    config.optimizer.learning_rate = 1e-4
    config.optimizer.min_learning_rate = config.optimizer.warmup_learning_rate = 1e-5
    config.optimizer.score_multiplier = 300.0
    config.optimizer.warmup_epochs = 0.1
    config.log_every_steps = 1
    config.update_from_flattened_dict(changes)
    return config


def train(config, steps=STEPS):
    """Returns (experiment, state, losses of the steps, text of the compiled step)."""
    experiment = build(config)
    state, losses = experiment.create_state(), []
    options, mesh = experiment.loader_options, experiment.mesh
    source, augment = experiment.train_source, experiment.augment
    step = None
    with loader.train_batches(source, augment, options, seed=config.seed) as batches:
        for _ in range(steps):
            batch = shard_batch(next(batches), mesh)
            if step is None:
                lowered = training.train_step.lower(state, batch, procedure=experiment.procedure)
                step = lowered.compile()
            state, seen = step(state, batch)
            losses.append(float(metrics.means(jax.device_get(seen))["loss"]))
    return experiment, state, losses, step


def active_steps(experiment, state):
    """Returns {layer name: [0 or 1 for each step]}."""
    scores = masks.scores(to_host(state.params, experiment.mesh))
    return {name: (np.asarray(score) > 0).astype(int).tolist() for name, score in scores.items()}
