"""What the user is told: names that may have been meant, time left, layers that are silent."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import snnvit_jax as snn
from snnvit_jax import evaluation, neurons
from snnvit_jax.common import values
from snnvit_jax.common.nearest import did_you_mean
from snnvit_jax.report import page_tables
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import results, shipped
from snnvit_jax.runs.clock import in_words
from snnvit_jax.runs.profiling import SKIPPED, Profile

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("adamW", "; did you mean 'adamw'?"),
        ("lam", "; did you mean 'lamb'?"),
        ("sgd", ""),
        ("", ""),
        (3, ""),
        (None, ""),
    ],
)
def test_the_nearest_name_is_suggested_if_one_is_near(given, hint):
    assert did_you_mean(given, ("adamw", "lamb")) == hint
    if given is not None:
        with pytest.raises(ValueError) as caught:
            values.optional(values.one_of(("adamw", "lamb"))).check("x", given)
        assert str(caught.value).endswith(f"adamw, lamb{hint}")


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda: snn.create_model("spikformer_4_348"), "spikformer_4_384"),
        (lambda: neurons.as_neuron({"kind": "lfi"}), "lif"),
        (lambda: neurons.as_neuron({"kind": "lif", "surrogate": "sigmoit"}), "sigmoid"),
        (lambda: neurons.as_neuron({"kind": "lif", "reset": "sof"}), "soft"),
    ],
)
def test_mistyped_values_name_what_was_meant(call, meant):
    with pytest.raises(ValueError, match=f"did you mean '{meant}'"):
        call()


def test_a_mistyped_key_of_a_configuration_names_what_was_meant():
    config = config_lib.default_config()
    config.time_step_penality = 1.0
    with pytest.raises(ValueError, match="did you mean 'time_step_penalty'"):
        config_lib.validate(config)


def test_configurations_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert set(shipped.names()) == {path.stem for path in CONFIGS.glob("*.py")}
    digits = str((CONFIGS / "digits.py").resolve())
    for given in ("digits", "digits.py", "configs/digits.py"):
        assert shipped.locate(f"{given}:sdt") == f"{digits}:sdt"
    (tmp_path / "digits").touch()  # a file of one's own comes first
    assert shipped.locate("digits") == "digits"
    with pytest.raises(FileNotFoundError, match="did you mean 'cifar10'"):
        shipped.locate("configs/cifar1.py")


@pytest.mark.parametrize(("seconds", "words"), [(40, "40 s"), (420, "7 min"), (11520, "3.2 h")])
def test_times_are_told_in_words(seconds, words):
    assert in_words(seconds) == words


@pytest.fixture(scope="module")
def result(tiny, tiny_energy):
    rates = {name: layer.rates for name, layer in tiny_energy.neurons.items()}
    found = evaluation.Evaluation.__dataclass_fields__
    given = {
        "split": "test",
        "examples": 3,
        "loss": 1.0,
        "accuracy": 0.5,
        "confusion": np.eye(3),
        "firing_rates": rates,
        "schedule": snn.TimeStepSchedule.from_variables(tiny.variables, list(rates)),
        "energy": tiny_energy,
    }
    return evaluation.Evaluation(**{name: given[name] for name in found if name in given})


def test_the_log_knows_steps_and_rates_of_each_module(result):
    lines = results.of_modules(result)
    assert lines["eval_time_steps/block_0/attn"] == 4.0
    rates = [r for n, r in result.firing_rates.items() if n.rpartition("/")[0] == "block_0/mlp"]
    assert lines["eval_firing_rate/block_0/mlp"] == pytest.approx(np.mean(rates))
    assert len(lines) == 2 * len(result.schedule.modules)


def test_silent_layers_come_with_what_helps(result):
    assert "learning_rate" not in page_tables.silent_and_saturated(result)
    rates = {name: np.zeros_like(rate) for name, rate in result.firing_rates.items()}
    page = page_tables.silent_and_saturated(dataclasses.replace(result, firing_rates=rates))
    assert "lower optimizer.learning_rate" in page
    assert "block_0/<wbr>mlp/<wbr>fc1_lif" in page


def test_a_trace_holds_the_steps_asked_for(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda *_, **__: calls.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    profile = Profile(tmp_path, 3)
    for step in range(SKIPPED + 5):
        profile.before_step()
        calls.append(step)
        written = profile.after_step(jnp.ones(2))
        assert written == (step == SKIPPED + 2)
    first = SKIPPED
    assert calls == [0, 1, "start", first, first + 1, first + 2, "stop", first + 3, first + 4]
    assert not profile.end()


def test_a_trace_is_closed_if_training_ends_and_none_is_begun_unasked(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda *_, **__: calls.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    for steps, wanted in ((9, ["start", "stop"]), (0, [])):
        calls.clear()
        profile = Profile(tmp_path, steps)
        for _ in range(SKIPPED + 2):
            profile.before_step()
            profile.after_step(())
        profile.end()
        assert calls == wanted
