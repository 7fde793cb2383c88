"""SpikingResformer: the published numbers, sizes, refusals, rates, deployment, energy and more."""

import dataclasses
import functools

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from test_convert import assert_same_gradients, assert_same_spikes, run_eval, run_train

import snnvit_jax as snn

FILE = "spikingresformer_small"


@pytest.fixture(scope="module")
def golden():
    return golden_files.read(FILE)


# ---------------------------------------------------------------- the published numbers


def test_inference_is_the_published_one(golden):
    logits, spikes = run_eval(golden, "float32")
    assert_same_spikes(spikes, golden.eval.spikes)
    assert all(0 < emitted.mean() < 1 for emitted in spikes.values())
    np.testing.assert_allclose(logits, golden.eval.logits, 0, 1e-5)


def assert_published_step(golden, step, tolerance, zero):
    assert_same_spikes(step.spikes, golden.train.spikes)
    np.testing.assert_allclose(step.logits, golden.train.logits, 0, 1e-5)
    assert step.loss == pytest.approx(golden.train.loss, rel=1e-6)
    assert_same_gradients(step.gradients, golden, tolerance, zero)
    assert set(step.running) == set(golden.train.running)
    assert sum("firing_rate" in name for name in step.running) == 8
    for name, expected in golden.train.running.items():
        found = step.running[name].reshape(expected.shape)
        np.testing.assert_allclose(found, expected, 1e-5, 1e-6, err_msg=name)


def test_a_training_step_is_the_published_one(golden):
    assert_published_step(golden, run_train(golden, "float32"), tolerance=1e-4, zero=1e-5)


def test_a_training_step_in_float64_agrees_more_closely(golden, x64):
    assert_published_step(golden, run_train(golden, "float64"), tolerance=1e-6, zero=1e-9)
