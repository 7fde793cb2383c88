"""A run of the trainer that takes seconds, and how to read what it logged."""

import json
import pathlib
import sys

from snnvit_jax.runs import config as config_lib

REPOSITORY = pathlib.Path(__file__).parents[1]


def tiny_config():
    """A network that trains in seconds: what is tested here is everything around it."""
    config = config_lib.default_config()
    config.epochs = 2
    config.batch_size = 180
    config.target_time_steps = 1.5
    config.time_step_penalty = 2.0
    config.optimizer.score_multiplier = 100.0
    config.time_step_anneal_epochs = 1.0
    config.model.time_steps = 2
    config.model.embed_dim = 16
    config.model.num_heads = 2
    config.model.depth = 1
    config.data.image_size = 8
    config.data.crop_padding = 1
    config.optimizer.warmup_epochs = 0.5
    config.log_every_steps = 2
    return config


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def command(*flags):
    return [sys.executable, "-m", "snnvit_jax.main", *flags]
