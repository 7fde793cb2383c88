"""Lengths of a training: shares that follow it, epochs where they are given."""

import pathlib
import sys

import by_path
import hypothesis
import pytest
from absl import flags
from hypothesis import strategies as st
from ml_collections import config_flags

from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import experiment
from snnvit_jax.runs.plan import plan
from snnvit_jax.training import lengths

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def module(name):
    return by_path.module(CONFIGS / f"{name}.py")


ALL = [
    (path.stem, variant)
    for path in sorted(CONFIGS.glob("*.py"))
    for variant in getattr(module(path.stem), "VARIANTS", (None,))
]


def load(name, variant=None):
    return module(name).get_config(*([variant] if variant else []))


@pytest.fixture
def from_command_line(monkeypatch):
    """Returns a function: (name in configs/, overrides) -> configuration."""

    def parse(name, *overrides):
        arguments = ["program", f"--config={CONFIGS / name}", *overrides]
        monkeypatch.setattr(sys, "argv", arguments)  # where overrides are looked up
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", flag_values=values)
        values(arguments)
        return values.config

    return parse


# Epochs at which things happen in the trainings of configs/ as they are published or measured.
PUBLISHED = {"warm": 20, "cool": 300, "scores_start": 62, "target": 186, "scores_end": 248}
FINETUNE = {"warm": 1, "cool": 30, "scores_start": 1, "target": 13.4, "scores_end": 24.8, "end": 31}
SMOKE = {"warm": 0.5, "cool": 1.5, "scores_start": 0.4, "target": 1.2, "scores_end": 1.6, "end": 2}
TIMES = {
    ("digits", None): {
        **{"warm": 2, "cool": None, "scores_start": 7, "target": 34, "scores_end": 46, "end": 72},
    },
    ("cifar10", "small"): {
        **{"warm": 0.1, "scores_start": 0.4, "target": 1.4, "scores_end": 1.7, "end": 2},
        **{"cool": None, "mixing_end": None},
    },
    ("cifar10", "finetune_time_steps"): {**FINETUNE, "mixing_end": 20},
    ("cifar100", "finetune_time_steps"): {**FINETUNE, "mixing_end": 20},
    ("imagenet", "finetune_time_steps"): {**FINETUNE, "mixing_end": 20},
    ("cifar10", "smoke"): {**SMOKE, "mixing_end": 1.5},
    ("cifar100", "smoke"): {**SMOKE, "mixing_end": 1.5},
    ("imagenet", "smoke"): {**SMOKE, "mixing_end": None},
    **{
        (name, size): {**PUBLISHED, "end": 310, "mixing_end": off}
        for name, off in (("cifar10", 200), ("cifar100", 200), ("imagenet", None))
        for size in module(name).PUBLISHED
        if size.startswith("spikformer")  # of the others, tests/test_recipes.py
    },
}


@pytest.mark.parametrize(("name", "variant"), TIMES)
def test_things_happen_at_the_published_epochs(name, variant):
    found = plan(load(name, variant))
    for key, epoch in TIMES[name, variant].items():
        exactly = epoch if epoch is None or key != "target" else pytest.approx(epoch)  # a sum
        assert getattr(found, key) == exactly, key
    assert (found.schedule_start, found.schedule_end) == (0, found.end)


@pytest.mark.parametrize("factor", [0.1, 10])
@pytest.mark.parametrize(("name", "variant"), ALL)
def test_every_training_takes_another_length_by_one_key(from_command_line, name, variant, factor):
    before = plan(load(name, variant))
    path = f"{name}.py:{variant}" if variant else f"{name}.py"
    config = from_command_line(path, f"--config.epochs={before.end * factor:g}")
    config_lib.validate(config)
    after = plan(config)
    for key in ("warm", "cool", "scores_start", "target", "scores_end", "mixing_end", "end"):
        old, new = getattr(before, key), getattr(after, key)
        assert new == (None if old is None else pytest.approx(old * factor)), key
    for steps_per_epoch in (0.9, 1437 / 64, 5000.5):
        rate = experiment.learning_rate(config, steps_per_epoch)
        assert 0 <= rate(0) <= config.optimizer.learning_rate
        assert 0 < rate(1) <= config.optimizer.learning_rate


@pytest.mark.parametrize("epochs", ["6", "0.5", "720"])
def test_digits_are_built_at_any_length(from_command_line, epochs):
    config = from_command_line("digits.py", f"--config.epochs={epochs}")
    built = experiment.build(config)
    objective, total = built.procedure.objective, built.total_steps
    assert total == round(float(epochs) * 1437 / 64)
    assert 0 < objective.start_step + objective.anneal_steps <= objective.freeze_step <= total


def test_epochs_count_where_they_are_given(from_command_line):
    overrides = ("--config.epochs=60", "--config.time_step_freeze_epoch=50")
    config = from_command_line("digits.py", *overrides, "--config.optimizer.warmup_epochs=3")
    found = plan(config)
    assert (found.warm, found.scores_end) == (3, 50)
    assert found.scores_start == pytest.approx(60 * 7 / 72)


def test_an_older_configuration_keeps_its_meaning():
    """One written before there were shares: all lengths are epochs, and those are whole."""
    text = (
        '{"epochs": 72, "time_step_start_epoch": 7.0, "time_step_anneal_epochs": 27.0,'
        '"time_step_freeze_epoch": null, "target_time_steps": 2.0, "time_step_penalty": 1.0,'
        '"mixing": {"mixup_alpha": 0.5, "off_epoch": null},'
        '"optimizer": {"warmup_epochs": 2.0, "cooldown_epochs": 0.0}}'
    )
    found = plan(config_lib.from_json(text))
    assert (found.end, found.warm, found.scores_start, found.target) == (72, 2, 7, 34)
    assert (found.cool, found.scores_end, found.mixing_end) == (None, None, None)


def test_a_plan_is_told_in_one_line():
    assert plan(load("digits")).described() == (
        "warm-up to epoch 2, scores of time steps learn from epoch 7, "
        "budget at its target from epoch 34, masks fixed from epoch 46, training to epoch 72"
    )


@hypothesis.given(st.integers(1, 400), st.data())
def test_a_share_of_whole_epochs_gives_whole_epochs(total, data):
    epochs = data.draw(st.integers(0, total))
    settings = {"warmup": epochs / total, "warmup_epochs": None}
    assert lengths.in_epochs(settings, "warmup", total) == epochs


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"time_step_start": -0.1}, "time_step_start=-0.1 must be a number, at least 0"),
        ({"optimizer.warmup": 1.5}, "optimizer.warmup=1.5 must be a number, at least 0"),
        (
            {"optimizer.cooldown_epochs": -1.0},
            "optimizer.cooldown_epochs=-1.0 must be None or a number, at least 0",
        ),
        ({"mixing.off": float("nan")}, "mixing.off=nan must be None or a number"),
        (
            {"time_step_start": 0.6, "time_step_freeze": 0.5},
            r"from time_step_start=0.6 \(6 epochs\), .* by time_step_freeze=0.5 \(5 epochs\) and",
        ),
        ({"epochs": 0.0}, "epochs=0.0 must be a number, above 0"),
        ({"epochs": float("nan")}, "epochs=nan must be a number, above 0"),
        ({"schedule_start_epoch": 10.0}, "schedule_start_epoch=10.0 must be below epochs=10.0"),
        ({"schedule_epochs": 0.0}, "schedule_epochs=0.0 must be None or a number, above 0"),
        ({"extend": "more"}, "extend='more' must be one of final_rate, restart_schedule, stretch"),
    ],
)
def test_lengths_that_do_not_fit_are_named(values, message):
    config = config_lib.default_config()
    config.update_from_flattened_dict(values)
    with pytest.raises(ValueError, match=message):
        config_lib.validate(config)
