"""Finished runs beside each other, from folders put together by hand."""

import json
import re

import numpy as np
import pytest
from absl import flags

import snnvit_jax as snn
from snnvit_jax import main
from snnvit_jax.models import describe
from snnvit_jax.report import comparison_figures
from snnvit_jax.runs import classes, commands, comparing, networks
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs.workdir import Workdir

CONVENTIONS = ("accumulate", "multiply")


def config_of(seed=0):
    config = config_lib.default_config()
    config.model.update({"time_steps": 2, "embed_dim": 16, "num_heads": 2, "depth": 1})
    config.data.image_size = 8
    config.seed = seed
    return config


@pytest.fixture(scope="module")
def model():
    return networks.model_of(config_of().model, 10, 8)


def finished(folder, model, accuracy, seed=0, energy=True):
    """The folder of a run that has ended; its checkpoint is the patched one."""
    workdir = Workdir(folder)
    workdir.path.mkdir(parents=True)
    workdir.write_config(config_of(seed), 0)
    classes.save(workdir, "0123456789")
    schedule = snn.TimeStepSchedule({n: [1, seed % 2] for n in snn.layer_names(model, 1)})
    schedule.save(workdir.schedule)
    summary = {"accuracy": accuracy, "examples": 360, "split": "test", "epochs": 2.0, "steps": 2}
    workdir.write_summary(summary)
    lines = [
        {"step": n, "epoch": float(n), "loss": 2.0 / n, "eval_accuracy": n / 4} for n in (1, 2)
    ]
    workdir.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if energy:
        totals = {name: {"microjoule": 0.5 + seed + n} for n, name in enumerate(CONVENTIONS)}
        (workdir.path / "energy.json").write_text(json.dumps({"totals": totals}))
    return workdir.path


@pytest.fixture(scope="module")
def weights(lively, model):
    return lively(model, 1)


@pytest.fixture
def patched(monkeypatch, weights, model):
    """Every folder holds the same weights under its own schedule; nothing is timed for long."""

    def load(checkpoints):
        schedule = snn.TimeStepSchedule.load(checkpoints.parent / "schedule.json")
        return snn.with_schedule(weights, schedule)

    monkeypatch.setattr(networks, "load_variables", load)
    monkeypatch.setattr(comparing, "SECONDS", 1e-9)
    monkeypatch.setattr(comparing.compare, "__defaults__", (1, 1e-9))


@pytest.fixture
def runs(patched, model, tmp_path):
    return [
        finished(tmp_path / "runs" / name, model, 0.5 + 0.1 * n, seed=n)
        for n, name in enumerate(("a", "b<i>", "c", "d"))
    ]


def test_one_page_shows_all_that_is_to_be_compared(runs, tmp_path, capsys):
    assert commands.compare(runs, tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", page) == [
        *("What they are", "What they reach", "What they cost when deployed"),
        *("Accuracy against cost", "How they learned", "What their layers learned"),
        "Settings that differ",
    ]
    assert "Spikformer with 1 block and 16 channels" in page
    for shown in ("50.00 %", "80.00 %", "1.00 of 2", "2.00 of 2", ">0.5", ">4.5", "b&lt;i&gt;"):
        assert shown in page, shown
    assert "<i>" not in page and 'name="viewport"' in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert page.count("Schedule of") == 4
    settings = page[page.index("Settings that differ") :]
    assert re.findall("<tr><td[^>]*>([^<]*)<", settings) == ["seed"]
    out = capsys.readouterr().out
    assert "70.00 %" in out and "page.html" in out


def test_the_cost_is_that_of_each_runs_own_program(runs, tmp_path):
    found = comparing.compare(runs[:2], tmp_path / "page.html")
    for run, folder in zip(found, runs, strict=False):
        assert run.flops == networks.open_network(folder).flops(1)
        assert run.milliseconds > 0
    assert found[0].flops < found[1].flops
    assert "Accuracy against cost" not in (tmp_path / "page.html").read_text()


def test_a_run_may_be_called_like_a_trained_network(patched, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("digits_t4", "digits_relu")):
        finished(name, model, 0.5, seed=seed)
    found = comparing.compare(["digits_t4", "digits_relu"], "page.html")
    assert [run.name for run in found] == ["digits_t4", "digits_relu"]
    assert found[0].flops < found[1].flops < 1e6  # of the runs' own programs


def test_a_run_without_counted_energy_is_shown_without(patched, model, tmp_path):
    folders = [finished(tmp_path / name, model, 0.5, energy=name == "a") for name in "ab"]
    comparing.compare(folders, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("not counted") == 2
    assert "None: they were configured alike" in page


def test_runs_that_cannot_be_compared_are_named(model, tmp_path):
    (tmp_path / "empty").mkdir()
    done = finished(tmp_path / "done", model, 0.5)
    going = finished(tmp_path / "going", model, 0.5)
    (going / "summary.json").unlink()
    for folders, message in (
        ([done], "two runs or more"),
        ([done, tmp_path / "empty" / ".." / "done"], "each once"),
        ([done, tmp_path / "empty"], "empty holds no run"),
        ([done, going], "going has not ended"),
    ):
        with pytest.raises(ValueError, match=message):
            comparing.compare(folders, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("output", "message"), [(".", "is a folder"), ("none/page.html", "there is no folder")]
)
def test_a_page_that_cannot_be_written_is_told_before_anything_is_deployed(
    model, tmp_path, monkeypatch, output, message
):
    folders = [finished(tmp_path / folder, model, 0.5) for folder in "ab"]
    monkeypatch.setattr(networks, "open_run", lambda _: pytest.fail("deployed"))
    with pytest.raises(ValueError, match=f"--output: .*{message}"):
        comparing.compare(folders, str(tmp_path / output))


@pytest.mark.parametrize("name", ["summary.json", "energy.json", "schedule.json"])
@pytest.mark.parametrize("content", [b"", b"\xff{}", b"[1]", b"null", b"{}"])
def test_results_that_are_damaged_are_named_before_anything_is_deployed(
    model, tmp_path, name, content
):
    folders = [finished(tmp_path / folder, model, 0.5) for folder in "ab"]
    (folders[1] / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"/b/{name}.* (hold a run's results|time-step schedule)"):
        comparing.compare(folders, tmp_path / "page.html")


def test_names_are_as_short_as_tells_runs_apart(tmp_path):
    assert comparing.short_names([tmp_path / "x" / "1", tmp_path / "y" / "2"]) == ["1", "2"]
    assert comparing.short_names([tmp_path / "x" / "1", tmp_path / "y" / "1"]) == ["x/1", "y/1"]


def test_the_frontier_joins_what_nothing_beats():
    costs, values = [1, 2, 3, 2, 1, 4], [0.5, 0.7, 0.6, 0.7, 0.4, 0.9]
    assert comparison_figures.frontier(costs, values) == [0, 1, 5]
    rng = np.random.default_rng(0)
    costs, values = rng.integers(6, size=(2, 40))
    best = comparison_figures.frontier(costs, values)
    beaten = {
        i
        for i in range(40)
        for j in range(40)
        if (costs[j] <= costs[i] and values[j] > values[i])
        or (costs[j] < costs[i] and values[j] == values[i])
    }
    assert not beaten & set(best)
    assert {(costs[i], values[i]) for i in range(40) if i not in beaten} == {
        (costs[i], values[i]) for i in best
    }


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("spikformer_2_384", {}, "Spikformer with 2 blocks and 384 channels"),
        (
            "metaspikeformer_8_384_imagenet",
            {},
            "MetaSpikeformer with 6+2 blocks and 96+192+384+480 channels",
        ),
    ],
)
def test_a_model_is_described_by_what_it_is(name, settings, words):
    assert describe(snn.create_model(name, **settings)) == words


def test_the_command_line_takes_folders(runs, tmp_path, capsys):
    target = tmp_path / "page.html"
    arguments = ["snnvit", "--mode=compare", *map(str, runs[:2]), f"--output={target}"]
    saved = flags.FLAGS.flag_values_dict()
    try:
        assert main.main(flags.FLAGS(arguments)) == 0
    finally:
        for name in ("mode", "output"):
            flags.FLAGS[name].value = saved[name]
    assert target.exists()
    assert "b<i>" in capsys.readouterr().out
