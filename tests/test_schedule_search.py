"""What experiments/cifar10/search.py gives up, where every step's use is known."""

import functools
import json
import pathlib
import types

import by_path
import jax.numpy as jnp
import numpy as np
import pytest

import snnvit_jax as snn
from snnvit_jax.pretrained import card
from snnvit_jax.pretrained.catalogue import NETWORKS

FILE = pathlib.Path(__file__).parents[1] / "experiments" / "cifar10" / "search.py"
NAMES = ("patch_embed/proj_lif", "patch_embed/rpe_lif", "block_0/attn/q_lif", "block_0/attn/k_lif")
UNITS = {NAMES[0]: [NAMES[0]], NAMES[1]: [NAMES[1]], "block_0/attn": list(NAMES[2:])}
USE = {
    NAMES[0]: [3.0, 4.0, 2.0, 1.0],
    NAMES[1]: [0.0, -1.0, 5.0, 6.0],
    "block_0/attn": [0.5, 9.0, 1.9, 9.0],  # of both layers: half for each
}


@pytest.fixture(scope="module")
def script():
    return by_path.module(FILE)


def loss_of(schedule):
    return -sum(np.dot(USE[unit], schedule.masks[layers[0]]) for unit, layers in UNITS.items())


def steps_of(schedule):
    return schedule.average


def everything():
    return snn.TimeStepSchedule({name: [1, 1, 1, 1] for name in NAMES})


def test_units_are_layers_of_the_patch_embedding_and_modules(script):
    assert script.units(NAMES) == UNITS


@pytest.mark.parametrize("width", [1, 3, 12])
def test_the_least_useful_step_goes_first_for_each_layer_that_it_saves(script, width):
    rounds = list(script.search(loss_of, steps_of, everything(), 2.25, width))
    given_up = [(one["unit"], one["step"]) for one in rounds]
    expected = [(NAMES[1], 1), (NAMES[1], 0), ("block_0/attn", 0), ("block_0/attn", 2)]
    assert given_up == [*expected, (NAMES[0], 3)]
    last = rounds[-1]
    assert last["cost"] == last["schedule"].average == 2.25
    assert last["loss"] == pytest.approx(loss_of(last["schedule"]))


def test_every_unit_keeps_a_step(script):
    rounds = list(script.search(loss_of, steps_of, everything(), 1.0, 4))
    assert set(rounds[-1]["schedule"].layers.values()) == {1}
    assert len({(one["unit"], one["step"]) for one in rounds}) == len(rounds) == 9
    assert list(script.search(loss_of, steps_of, rounds[-1]["schedule"], 1.0, 4)) == []


def test_what_saves_most_for_its_use_goes_first(script):
    dear = NAMES[0]  # ten times the energy: a step of use 3 or 4 is worth less than 0.5 elsewhere

    def energy_of(schedule):
        return sum((10 if n == dear else 1) * steps for n, steps in schedule.layers.items())

    rounds = list(script.search(loss_of, energy_of, everything(), 30.0, 12))
    assert [(one["unit"], one["step"]) for one in rounds][:3] == [
        (NAMES[1], 1),
        (NAMES[1], 0),
        (dear, 3),
    ]
    assert rounds[-1]["cost"] <= 30 < rounds[-2]["cost"]


def test_a_step_that_saves_nothing_is_not_given_up(script):
    free = "block_0/attn"

    def energy_of(schedule):
        return sum(steps for n, steps in schedule.layers.items() if not n.startswith(free))

    rounds = list(script.search(loss_of, energy_of, everything(), 2.0, 12))
    assert {one["unit"] for one in rounds} == set(NAMES[:2])


def test_where_the_loss_falls_what_saves_more_comes_first(script):
    cheap, dear = NAMES[:2]
    gains = {cheap: -0.001, dear: -0.01}  # of its first step

    def loss_of(schedule):
        return sum(gain * (not schedule.masks[name][0]) for name, gain in gains.items())

    def energy_of(schedule):
        prices = {cheap: 0.01, dear: 1.0}
        return sum(prices.get(name, 0.0) * steps for name, steps in schedule.layers.items())

    rounds = list(script.search(loss_of, energy_of, everything(), 3.04, 12))
    assert [(one["unit"], one["step"]) for one in rounds] == [(dear, 0)]


def test_what_was_measured_before_is_not_said_of_the_network_that_was_found(script):
    about = snn.load_pretrained("digits_t4").about
    copy = json.loads(json.dumps(about))
    asked = {"target": 2.0, "energy": None, "criterion": "change", "examples": 9}
    note = script.noted(types.SimpleNamespace(**asked), "digits_t4", "train[:90%]")
    found = script.described(about, "found", note)
    assert about == copy and "measured" not in found
    assert found["trained"]["note"].startswith(about["trained"]["note"])
    for said in ("digits_t4", "2 time steps", "--criterion=change, 9 examples of train[:90%]"):
        assert said in found["trained"]["note"]
    text = card.render(found)
    assert text.startswith("# found\n") and "does not say: measured.accuracy" in text
    lacks = {**about, "trained": {"config": {}}}
    assert script.described(lacks, "found", note)["trained"] == {"config": {}, "note": note}
    asked |= {"energy": 0.5}
    assert "down to 0.5 µJ" in script.noted(types.SimpleNamespace(**asked), "x", "train")


def test_the_network_that_was_found_loads(script, tmp_path, monkeypatch):
    network = snn.load_pretrained("digits_t4")
    masks = {name: [0, 1, 0, 1] for name in network.schedule.masks}
    options = types.SimpleNamespace(out=tmp_path / "found", network="pretrained:digits_t4")
    options.__dict__.update(target=2.0, energy=None, criterion="loss", examples=3)
    monkeypatch.setattr(script, "parse", lambda: (options, None, network, "train"))
    monkeypatch.setattr(script, "measure", lambda *_: snn.TimeStepSchedule(masks))
    script.main()
    found = snn.load_pretrained(options.out)
    assert found.schedule.as_lists() == masks
    assert (found.about["name"], "measured" in found.about) == ("found", False)


def test_the_energy_is_counted_from_images_of_all_the_split(script, monkeypatch):
    def batches(experiment, _):
        kept = list(experiment)
        for some in (kept[:40], kept[40:]):  # the last of a batch is a gap
            mask = [True] * (len(some) - 1) + [False]
            yield {"image": jnp.asarray(some, jnp.float32), "mask": jnp.asarray(mask)}, None

    def report(model, variables, images):
        return types.SimpleNamespace(microjoule=(model, variables, images.tolist()))

    monkeypatch.setattr(script.analysis, "with_examples", script.analysis.EvenlySpaced)
    monkeypatch.setattr(script.analysis, "batches", batches)
    monkeypatch.setattr(script, "with_schedule", lambda variables, schedule: schedule)
    monkeypatch.setattr(script.snn, "energy_report", report)
    found = script.energy_function(Split(range(640)), {})("schedule")
    spaced = [float(i) for i in range(0, 640, 10)]
    assert found == ("model", "schedule", spaced[:39] + spaced[40:63])


class Split(list):
    model = "model"


def test_layers_of_a_unit_may_have_different_steps(script):
    q, k = NAMES[2:]
    masks = {NAMES[0]: [0, 0, 0, 1], q: [0, 0, 1, 0], k: [1, 1, 1, 0]}
    rounds = list(script.search(lambda _: 0.0, steps_of, snn.TimeStepSchedule(masks), 1.0, 4))
    assert [(one["unit"], one["step"]) for one in rounds] == [
        *(("block_0/attn", 0), ("block_0/attn", 1))
    ]
    assert rounds[-1]["schedule"].as_lists() == masks | {k: [0, 0, 1, 0]}
    silent = snn.TimeStepSchedule({q: [0, 0, 0, 0], k: [1, 1, 0, 0]})
    (only,) = script.search(lambda _: 0.0, steps_of, silent, 0.5, 4)
    assert only["schedule"].layers == {q: 0, k: 1}
    apart = snn.TimeStepSchedule({q: [1, 0, 0, 0], k: [0, 1, 0, 0]})
    assert list(script.search(lambda _: 0.0, steps_of, apart, 0.5, 4)) == []


def test_where_the_best_save_nothing_any_more_the_others_are_measured(script):
    some, other = NAMES[:2]

    def loss_of(schedule):
        return -np.dot(USE[some], schedule.masks[some]) - 10 * schedule.layers[other]

    def energy_of(schedule):  # where one step of some is gone, another saves nothing
        return 10.0 + (schedule.layers[some] == 4) + schedule.layers[other]

    rounds = list(script.search(loss_of, energy_of, everything(), 12.0, 1))
    assert [one["unit"] for one in rounds] == [some, other, other]
    assert rounds[-1]["cost"] == 12


def measured(script, monkeypatch, out, loss_of, energy_of=None, energy=None):
    """The schedule that `measure` finds, down to 2.25 time steps or an energy."""
    options = {"out": out, "target": 2.25, "energy": energy, "criterion": "loss"}
    options = types.SimpleNamespace(**options, examples=9, width=4)
    monkeypatch.setattr(script, "loss_function", lambda *_: loss_of)
    monkeypatch.setattr(script, "energy_function", lambda *_: energy_of)
    keep = functools.partial(script.write_rounds, options, "train")
    return script.measure(options, (None, None), everything(), keep)


def test_every_round_is_kept_when_it_is_over(script, tmp_path, monkeypatch):
    rounds = list(script.search(loss_of, steps_of, everything(), 2.25, 4))
    schedule = measured(script, monkeypatch, tmp_path / "new" / "out", loss_of)
    found = json.loads((tmp_path / "new" / "out" / "search.json").read_text())
    assert found["masks"] == schedule.as_lists() == rounds[-1]["schedule"].as_lists()
    assert (found["reached"], found["examples"], found["target"]) == (True, 9, 2.25)
    assert [one["step"] for one in found["rounds"]] == [one["step"] for one in rounds]


def test_a_search_that_is_stopped_keeps_its_rounds(script, tmp_path, monkeypatch):
    def stopped(schedule):
        if schedule.average < 3.25:
            raise KeyboardInterrupt
        return loss_of(schedule)

    with pytest.raises(SystemExit, match=r"stopped in round 3: .* is in .*search.json"):
        measured(script, monkeypatch, tmp_path, stopped)
    found = json.loads((tmp_path / "search.json").read_text())
    assert len(found["rounds"]) == 2 and found["reached"] is False


def test_a_goal_that_is_not_reached_is_told_and_its_rounds_are_kept(script, tmp_path, monkeypatch):
    def energy_of(schedule):  # with the last step alone it would be little
        return sum(np.dot([5, 4, 3, 0.001], mask) for mask in schedule.masks.values())

    def loss_of(schedule):  # but that is given up first
        return sum(np.dot([-9.0, 0, 0, 9], mask) for mask in schedule.masks.values())

    message = r"error: 0.01 µJ cannot be reached, the least is 20; what was measured is in .*json"
    with pytest.raises(SystemExit, match=message):
        measured(script, monkeypatch, tmp_path, loss_of, energy_of, 0.01)
    found = json.loads((tmp_path / "search.json").read_text())
    assert (len(found["rounds"]), found["reached"], found["energy"]) == (9, False, 0.01)


@pytest.mark.parametrize(
    ("energy", "message"),
    [(3.9, "3.9 µJ cannot be reached, with one step of every layer it has 4$"), (64, "nothing to")],
)
def test_goals_out_of_reach_or_reached_are_refused_at_once(
    script, tmp_path, monkeypatch, energy, message
):
    def energy_of(schedule):
        return sum(np.dot([3, 2, 1, 4], mask) for mask in schedule.masks.values())

    with pytest.raises(SystemExit, match=message):
        measured(script, monkeypatch, tmp_path, lambda _: 1 / 0, energy_of, energy)
    assert not list(tmp_path.iterdir())


def test_a_single_step_is_the_last_where_a_layer_lacks_it(script):
    schedule = snn.TimeStepSchedule({"a/x": [1, 1, 0], "a/y": [0, 1, 1], "a/z": [0, 0, 0]})
    kept = {"a/x": [0, 1, 0], "a/y": [0, 0, 1], "a/z": [0, 0, 0]}
    assert script.single(schedule, 2).as_lists() == kept


def test_the_network_is_found_once_and_so_many_examples_are_told_as_there_are(
    script, tmp_path, monkeypatch, capsys
):
    asked = []

    def open_run(place, count, *_):
        asked.append((place, count))
        return types.SimpleNamespace(eval_source=range(min(count, 7))), {}

    monkeypatch.setattr(script.analysis, "open_run", open_run)
    monkeypatch.setattr(script.snn, "load_pretrained", asked.append)
    monkeypatch.setattr("sys.argv", ["search.py", "pretrained:digits_t4", str(tmp_path / "out")])
    options, _, _, split = script.parse()
    assert (options.examples, split) == (7, "train")
    assert asked == [NETWORKS / "digits_t4", (NETWORKS / "digits_t4", 512)]
    monkeypatch.setattr("sys.argv", ["search.py", "digits_t4", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        script.parse()
    assert "digits_t4 is no trained network: give pretrained:NAME" in capsys.readouterr().err
    monkeypatch.chdir(NETWORKS)
    assert script.located("digits_t4") == NETWORKS / "digits_t4"
