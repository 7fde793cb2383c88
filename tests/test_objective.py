"""What training minimises: the budget of time steps, and settings that do not fit."""

import pytest

from snnvit_jax.training.objective import Objective, StepLosses


def test_the_budget_comes_down_linearly():
    objective = Objective(target_time_steps=1.0, start_step=10, anneal_steps=20)
    assert [float(objective.budget(step, 5)) for step in (0, 10, 15, 20, 30, 99)] == [
        *(5, 5, 4, 3, 1, 1)
    ]
    assert Objective().budget(3, 5) is None


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("groups", "modules"),
        ("estimator", "triangular"),
        ("target_time_steps", -1.0),
        ("time_step_penalty", float("nan")),
        ("min_time_steps", 0.5),
        ("patience_steps", 0),
        ("freeze_step", -1),
        ("label_smoothing", 2.0),
    ],
)
def test_an_objective_that_does_not_fit_is_refused(setting, value):
    with pytest.raises(ValueError, match=rf"objective\.{setting}={value!r} must be"):
        Objective(**{setting: value})


def test_step_losses_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"step_losses\.weight=1\.5 must be"):
        StepLosses(weight=1.5)
