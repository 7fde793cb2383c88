"""What holds for the golden file of every family: numbers of a pass, conversion, refusals."""

import golden_files
import numpy as np
import pytest
from test_convert import assert_same_gradients, assert_same_spikes, run_eval

import snnvit_jax as snn


def assert_published_inference(golden):
    """Every spike and the logits; returns {layer name: spikes}."""
    logits, spikes = run_eval(golden, "float32")
    assert_same_spikes(spikes, golden.eval.spikes)
    np.testing.assert_allclose(logits, golden.eval.logits, 0, 1e-5)
    return spikes


def assert_published_step(golden, step, tolerance, zero):
    """Every spike, logits, loss, gradients and running statistics of a training step."""
    assert_same_spikes(step.spikes, golden.train.spikes)
    np.testing.assert_allclose(step.logits, golden.train.logits, 0, 1e-5)
    assert step.loss == pytest.approx(golden.train.loss, rel=1e-6)
    assert_same_gradients(step.gradients, golden, tolerance, zero)
    assert set(step.running) == set(golden.train.running)
    for name, expected in golden.train.running.items():
        found = step.running[name]
        if "firing_rate" in name:  # published with axes of one element
            found = found.reshape(expected.shape)
        np.testing.assert_allclose(found, expected, 1e-5, 1e-6, err_msg=name)


def assert_nothing_lost(golden):
    """Converted weights are all that are used, number by number; returns the variables."""
    variables = snn.convert.from_torch(golden.model(), golden.weights)
    published = golden_files.as_published(variables["params"])
    published |= golden_files.as_published(variables["batch_stats"])
    assert set(golden.weights) - set(published) == set(golden.unused)
    for name, array in published.items():
        expected = golden.weights[name]
        np.testing.assert_array_equal(array.reshape(expected.shape), expected, err_msg=name)
    return variables


def assert_misfits_are_named(golden, names, beyond):
    """Weights of these names are missed and measured, and those beyond the model refused."""
    model, end = golden.model(), "running_mean"
    tracked = [name for name in golden.weights if name.endswith(end)]
    counters = {name.replace(end, "num_batches_tracked"): np.int64(7) for name in tracked}
    snn.convert.from_torch(model, golden.weights | counters)
    for name in names:
        without = {other: w for other, w in golden.weights.items() if other != name}
        with pytest.raises(ValueError, match=rf"missing=\['{name}'\], unexpected=\[\]"):
            snn.convert.from_torch(model, without)
        with pytest.raises(ValueError, match=rf"'{name}' is \(3, 5, 7\), not \("):
            snn.convert.from_torch(model, golden.weights | {name: np.zeros((3, 5, 7))})
    for name in beyond:
        with pytest.raises(ValueError, match=rf"missing=\[\], unexpected=\['{name}'\]$"):
            snn.convert.from_torch(model, golden.weights | {name: np.zeros(64)})
