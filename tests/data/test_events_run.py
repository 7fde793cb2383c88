"""A run on a folder of recordings: what is killed and stopped ends as what was left alone."""

import dataclasses
import itertools
import os
import signal

import event_files
import jax
import numpy as np
import pytest

from snnvit_jax.config import default_config, use_model
from snnvit_jax.runs import loop

STEPS = 6  # two epochs of twelve recordings


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Six recordings of each of two classes for training, one of each for test."""
    root = tmp_path_factory.mktemp("recordings")
    for split, name, index in itertools.product(("train", "test"), "ab", range(6)):
        seed = sum(map(ord, split)) + 10 * ord(name) + index
        path = root / split / name / f"{index}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(event_files.events_npz(event_files.random_events(300, seed=seed)))
    return root


def config_of(root, **changes):
    """Everything that is drawn at random is on: order, augmentation, mixing, dropped paths."""
    config = default_config()
    use_model(config, "spikformer_2_256_dvs")
    config.epochs, config.batch_size, config.log_every_steps = 2, 4, 1
    config.eval_every_epochs = 2.0
    config.save_every_seconds = 0.0  # after every epoch
    config.average_decay = 0.9
    config.target_time_steps, config.time_step_penalty = 1.5, 2.0
    config.mixing.mixup_alpha = 0.5
    config.optimizer.score_multiplier = 100.0
    config.model.update({"time_steps": 3, "embed_dim": 16, "num_heads": 2, "depth": 1})
    config.model.update({"pool": (True, True, False, False), "drop_path": 0.2})
    config.data.update({"name": "events", "dir": str(root), "eval_split": "test[:2]"})
    config.data.update({"image_size": 16, "flip": True, "crop_padding": 1})
    config.data.events.update({"height": 12, "width": 20, "operations": "published", "roll": 1})
    config.data.events.split_by = "time"
    config.update_from_flattened_dict(changes)
    return config


class KilledError(Exception):
    """In the place of a process's end, without a word."""


def train(config, folder, seen, kill_at=None, stop_at=None, like=None):
    """Trains until it ends, is killed or stopped; `seen` gets the batches of each step.

    Evaluation and report are left out. The compiled step is that of the run `like`, whose
    configuration is the same.
    """
    run = loop.Run(config, folder)
    if like is not None:
        procedure = like.experiment.procedure
        run.experiment = dataclasses.replace(run.experiment, procedure=procedure)
    take = run._train_one
    run._finish, run._is_evaluation_due = lambda last: last, lambda step: False

    def watched(step, batches, log):
        if step == kill_at:
            raise KilledError
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        kept = (seen.setdefault(step, []).append(batch) or batch for batch in batches)
        return take(step, kept, log)

    run._train_one = watched
    run.train()
    return run


def test_a_run_that_was_killed_and_stopped_ends_as_one_that_was_not(root, tmp_path):
    config, straight, pieces = config_of(root), {}, {}
    whole = train(config, tmp_path / "whole", straight)
    assert sorted(straight) == list(range(1, STEPS + 1))

    with pytest.raises(KilledError):
        train(config, tmp_path / "run", pieces, kill_at=5, like=whole)
    cached = config_of(root, **{"data.events.cache": str(tmp_path / "cache")})
    again = train(cached, tmp_path / "run", pieces, stop_at=5, like=whole)
    assert again.step == 5
    assert len(pieces[4]) == 2  # what was lost since the epoch's end was taken again
    last = train(cached, tmp_path / "run", pieces, like=whole)

    for step, (batch,) in straight.items():
        for other in pieces[step]:
            jax.tree.map(np.testing.assert_array_equal, batch, other)
    assert last.step == whole.step == STEPS
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get((last.state, whole.state)))
