"""Meta-SpikeFormer: the published numbers, sizes, refusals, deployment, energy and early exit."""

import dataclasses

import golden_files
import numpy as np
import pytest
from test_convert import assert_same_gradients, assert_same_spikes, run_eval, run_train

FILE = "metaspikeformer_small"


@pytest.fixture(scope="module")
def golden():
    return golden_files.read(FILE)


# ---------------------------------------------------------------- the published numbers


def test_inference_is_the_published_one(golden):
    logits, spikes = run_eval(golden, "float32")
    assert_same_spikes(spikes, golden.eval.spikes)
    np.testing.assert_allclose(logits, golden.eval.logits, 0, 1e-5)


def assert_published_step(golden, step, tolerance, zero):
    assert_same_spikes(step.spikes, golden.train.spikes)
    np.testing.assert_allclose(step.logits, golden.train.logits, 0, 1e-5)
    assert step.loss == pytest.approx(golden.train.loss, rel=1e-6)
    # Scales of a normalisation before a normalisation: their gradient exists through 1e-5 only.
    eps_only = golden.meta["eps_only_grads"]
    assert len(eps_only) == 12
    for name in eps_only:
        np.testing.assert_allclose(step.gradients[name], golden.train.gradients[name], 0, zero)
    meta = golden.meta | {"near_zero_grads": [*golden.meta["near_zero_grads"], *eps_only]}
    assert_same_gradients(step.gradients, dataclasses.replace(golden, meta=meta), tolerance, zero)
    assert set(step.running) == set(golden.train.running)
    for name, expected in golden.train.running.items():
        np.testing.assert_allclose(step.running[name], expected, 1e-5, 1e-6, err_msg=name)


def test_a_training_step_is_the_published_one(golden):
    assert_published_step(golden, run_train(golden, "float32"), tolerance=1e-4, zero=1e-5)


def test_float64_agrees_more_closely(golden, x64):
    logits, spikes = run_eval(golden, "float64")
    assert_same_spikes(spikes, golden.eval.spikes)
    np.testing.assert_allclose(logits, golden.logits64, 0, 1e-12)
    assert_published_step(golden, run_train(golden, "float64"), tolerance=1e-6, zero=1e-9)
