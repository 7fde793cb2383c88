"""Stopping early: what is predicted after each step, and when an image exits."""

import dataclasses

import jax
import numpy as np
import pytest
from quickly import QUICKLY

import snnvit_jax as snn
from snnvit_jax import neurons
from snnvit_jax.evaluation import early_exit
from snnvit_jax.time_steps import masks


@pytest.fixture(scope="module")
def masked(tiny):
    """The small model's variables with a schedule that has gaps."""
    rng = np.random.default_rng(5)
    names = masks.scores(tiny.variables["params"])
    schedule = snn.TimeStepSchedule({name: rng.random(4) < 0.8 for name in names})
    return snn.with_schedule(tiny.variables, schedule)


@pytest.fixture(scope="module")
def running(tiny, masked):
    function = jax.jit(
        lambda v, x: early_exit.running_logits(tiny.model, v, x), compiler_options=QUICKLY
    )
    return np.asarray(function(masked, tiny.images))


def test_the_last_logits_are_the_models(running, tiny, masked):
    assert running.shape == (4, 3, 3)
    expected = jax.jit(tiny.model.apply)(masked, tiny.images)
    np.testing.assert_allclose(running[-1], expected, rtol=1e-5, atol=1e-5)


def test_earlier_logits_are_those_of_a_model_with_fewer_steps(running, tiny, masked):
    model = type(tiny.model)(dataclasses.replace(tiny.model.config, time_steps=2))
    scores = {name: s[:2] for name, s in masks.scores(masked["params"]).items()}
    shorter = masked | {"params": masks.replace_scores(masked["params"], scores)}
    expected = jax.jit(model.apply, compiler_options=QUICKLY)(shorter, tiny.images)
    np.testing.assert_allclose(running[1], expected, rtol=1e-5, atol=1e-5)


def test_another_kind_of_model_is_rejected():
    with pytest.raises(ValueError, match="LIF is of no known family: spikformer"):
        early_exit.running_logits(neurons.LIF(), {}, np.zeros((1, 8, 8, 3)))


# ---------------------------------------------------------------- criteria

P = np.array([0.7, 0.2, 0.1])


def test_confidence_is_the_largest_probability():
    np.testing.assert_allclose(early_exit.confidence(np.log(P) + 5), 0.7, rtol=1e-6)


def test_entropy_is_in_nats():
    expected = -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(early_exit.entropy(np.log(P) - 3), expected, rtol=1e-6)
    np.testing.assert_allclose(early_exit.entropy(np.zeros(4)), np.log(4), rtol=1e-6)
    assert early_exit.entropy(np.array([1000.0, 0, 0])) == 0  # no 0 * log 0


# Three images, three steps, two classes: the largest probability after each step.
CONFIDENCE = np.array([[0.6, 0.9, 0.55], [0.8, 0.6, 0.7], [0.7, 0.7, 0.6]])
LOGITS = np.log(np.stack([CONFIDENCE, 1 - CONFIDENCE], axis=-1))
LABELS = np.array([0, 0, 1])  # class 0 is always predicted


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.0, [1, 1, 1]), (0.58, [1, 1, 2]), (0.75, [2, 1, 3]), (0.85, [3, 1, 3]), (1.1, [3, 3, 3])],
)
def test_an_image_exits_at_its_first_confident_step(threshold, expected):
    assert early_exit.exit_steps(LOGITS, threshold).tolist() == expected


def test_low_entropy_and_high_confidence_agree_for_two_classes():
    for threshold in (0.58, 0.75, 0.85):
        p = np.array([threshold, 1 - threshold])
        limit = -np.sum(p * np.log(p))
        by_entropy = early_exit.exit_steps(LOGITS, limit, "entropy")
        np.testing.assert_array_equal(by_entropy, early_exit.exit_steps(LOGITS, threshold))


@pytest.mark.parametrize("criterion", early_exit.CRITERIA)
def test_a_sweep_counts_image_by_image(criterion):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 2, (4, 50, 3)), rng.integers(0, 3, 50)
    spent = np.array([0.5, 0.75, 2.0, 2.5])
    thresholds = [0.0, 0.4, 0.7, 0.9, 2.0]
    found = early_exit.sweep(logits, labels, thresholds, criterion, spent)
    for i, threshold in enumerate(thresholds):
        right = cost = 0
        for b in range(50):
            for t in range(4):
                p = np.exp(logits[t, b]) / np.exp(logits[t, b]).sum()
                clear = {
                    "confidence": p.max() >= threshold,
                    "entropy": -(p * np.log(p)).sum() <= threshold,
                }
                if clear[criterion] or t == 3:
                    right += int(logits[t, b].argmax() == labels[b])
                    cost += spent[t]
                    break
        assert found.accuracy[i] == pytest.approx(right / 50)
        assert found.average_time_steps[i] == pytest.approx(cost / 50)
    np.testing.assert_array_equal(found.thresholds, thresholds)


def test_a_stricter_threshold_never_takes_fewer_steps():
    thresholds = np.linspace(0.5, 1, 20)
    found = early_exit.sweep(LOGITS, LABELS, thresholds)
    assert (np.diff(found.average_time_steps) >= 0).all()
    assert found.average_time_steps[0] == 1
    assert found.average_time_steps[-1] == 3
    np.testing.assert_allclose(found.accuracy, 2 / 3)


def test_steps_spent_end_at_the_average():
    schedule = snn.TimeStepSchedule({"a": [1, 0, 1], "b": [1, 1, 1]})
    np.testing.assert_allclose(early_exit.steps_spent(schedule), [1, 1.5, 2.5])
    assert schedule.average == 2.5


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="criterion='hope'.*confidence, entropy"):
        early_exit.sweep(LOGITS, LABELS, [0.5], "hope")
    with pytest.raises(ValueError, match=r"labels \(2,\)"):
        early_exit.sweep(LOGITS, LABELS[:2], [0.5])
    with pytest.raises(ValueError, match=r"spent \(2,\)"):
        early_exit.sweep(LOGITS, LABELS, [0.5], spent=[1, 2])
    with pytest.raises(ValueError, match=r"\[T, B, K\], got shape \(3, 3\)"):
        early_exit.exit_steps(np.zeros((3, 3)), 0.5)


def test_the_time_that_recordings_need_is_that_of_their_own_steps():
    logits = np.zeros((3, 2, 4), np.float32)
    logits[:, 0, 1] = (1, 9, 9)  # clear after the second step
    logits[:, 1, 2] = (0, 1, 2)  # never
    times = np.array([[5, 7], [11, 20], [30, 40]])
    found = early_exit.sweep(logits, np.array([1, 2]), [0.99, 1.1], spent=times)
    np.testing.assert_allclose(found.average_time_steps, [(11 + 40) / 2, (30 + 40) / 2])
    np.testing.assert_allclose(found.accuracy, [1, 1])
    with pytest.raises(ValueError, match=r"spent \(2, 3\) do not fit"):
        early_exit.sweep(logits, np.array([1, 2]), [0.5], spent=times.T)
