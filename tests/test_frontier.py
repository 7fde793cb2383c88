"""The frontier of CIFAR-10, from runs that are finished already."""

import json
import pathlib
import re

import by_path
import numpy as np
import pytest
from PIL import Image

import snnvit_jax as snn
from snnvit_jax.runs import config as config_lib

PATH = pathlib.Path(__file__).parents[1] / "experiments" / "cifar10" / "frontier.py"


@pytest.fixture(scope="module")
def frontier():
    return by_path.module(PATH)


def finish(folder, steps, time_steps, accuracy):
    """Writes what a finished run leaves."""
    folder.mkdir(parents=True)
    masks = {"block_0/attn/q_lif": np.arange(time_steps) < steps}
    snn.TimeStepSchedule(masks).save(folder / "schedule.json")
    summary = {
        **{"accuracy": accuracy, "split": "test", "examples": 100, "epochs": 2.0, "seconds": 90.0},
        **{"average_time_steps": steps, "energy_uj": 2.0 * steps, "firing_rate": 0.1},
        "images_per_second": 50.0,
    }
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.mark.filterwarnings("ignore:.*arguments were not kept")
def test_finished_runs_become_a_table_and_a_figure(frontier, tmp_path, monkeypatch, capsys):
    finish(tmp_path / "learned-2-of-4-seed0", 2, 4, 0.6)
    finish(tmp_path / "learned-1.5-of-4-seed0", 1, 4, 0.5)
    finish(tmp_path / "fixed-3-seed0", 3, 3, 0.625)
    finish(tmp_path / "learned-2-of-4-seed0-spikes1", 2, 4, 0.55)
    arguments = ["frontier.py", str(tmp_path), "--targets", "2", "1.5", "--fixed", "3", "--jobs=2"]
    monkeypatch.setattr(frontier, "train", lambda *_: None)  # the others are left out
    arguments += ["--spike-penalties", "0", "1"]
    monkeypatch.setattr("sys.argv", [*arguments, "--", "--config.data.dir=nowhere"])
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    frontier.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if " min |" in line]
    assert rows == [
        "| learned, out of 4 | 0 | 0 | 1.00 | 0.5000 | 2 µJ | 2 min |",
        "| learned, out of 4 | 0 | 0 | 2.00 | 0.6000 | 4 µJ | 2 min |",
        "| learned, out of 4 | 1 | 0 | 2.00 | 0.5500 | 4 µJ | 2 min |",
        "| T = 3, all steps | 0 | 0 | 3.00 | 0.6250 | 6 µJ | 2 min |",
    ]
    found = json.loads((tmp_path / "frontier.json").read_text())
    assert found["fixed-3-seed0"]["modules"] == {"block_0/attn": 3.0}
    with Image.open(tmp_path / "frontier.png") as image:
        assert np.asarray(image).std() > 5


def test_several_seeds_become_a_mean_and_a_spread(frontier, tmp_path, monkeypatch, capsys):
    for seed, accuracy in enumerate((0.5, 0.6, 0.7)):
        finish(tmp_path / f"learned-2-of-4-seed{seed}", 2, 4, accuracy)
    finish(tmp_path / "fixed-1-seed0", 1, 1, 0.4)
    arguments = ["frontier.py", str(tmp_path), "--targets=2", "--fixed=1", "--no-training"]
    monkeypatch.setattr(frontier, "train", lambda *_: 1 / 0)
    monkeypatch.setattr("sys.argv", [*arguments, "--seeds", "0", "1", "2"])
    frontier.main()
    printed = capsys.readouterr().out
    assert "| learned, target 2 of 4 | 0, 1, 2 | 2.00 | 60.00 ± 10.00 | 4.00 ± 0.00 |" in printed
    assert "| T = 1, all steps | 0 | 1.00 | 40.00 | 2.00 |" in printed
    means = frontier.spread(json.loads((tmp_path / "frontier.json").read_text()))
    assert [frontier._bar(one) for one in means] == pytest.approx([(0.24 / 100) ** 0.5, 0.1])
    monkeypatch.setattr("sys.argv", [*arguments, "--seeds", "7"])
    with pytest.raises(SystemExit, match="none of the 2 networks"):
        frontier.main()


def test_results_of_several_files_are_put_together(frontier, tmp_path, monkeypatch, capsys):
    network = {
        **{"kind": "learned", "time_steps": 4, "target": 2.0, "seed": 0, "spike_penalty": 0.0},
        **{"accuracy": 0.5, "examples": 100, "average_time_steps": 2.0, "energy_uj": 3.0},
        "seconds": 60.0,
    }
    (tmp_path / "a.json").write_text(json.dumps({"a": network}))
    other = {**network, "time_steps": 2, "target": 1.5, "average_time_steps": 1.5}
    (tmp_path / "b.json").write_text(json.dumps({"b": other}))
    monkeypatch.setattr(frontier, "train", lambda *_: 1 / 0)
    files = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    monkeypatch.setattr("sys.argv", ["frontier.py", str(tmp_path / "out"), "--results", *files])
    frontier.main()
    printed = capsys.readouterr().out
    assert "learned, target 2 of 4 |" in printed and "learned, target 1.5 of 2 |" in printed
    assert (tmp_path / "out" / "frontier.png").exists()
    found = frontier.read_results([tmp_path / "a.json", tmp_path / "b.json"])
    styles = [style for _, style in frontier.series(frontier.spread(found))]
    assert [s["label"] for s in styles] == ["learned, out of T = 4", "learned, out of T = 2"]
    assert len({s["fmt"] for s in styles}) == 2
    with pytest.raises(SystemExit, match="none.json"):
        frontier.read_results([tmp_path / "none.json"])


def test_runs_of_other_settings_are_refused_before_any_training(frontier, tmp_path, monkeypatch):
    finish(tmp_path / "fixed-3-seed0", 3, 3, 0.6)
    arguments = [str(tmp_path), "--targets", "--fixed", "2", "3", "--", "--config.epochs=1"]
    options = frontier.parse(arguments)
    before = frontier.arguments_of(frontier.points(options)[1], options)
    (tmp_path / "fixed-3-seed0.command.json").write_text(json.dumps(before))
    started = []
    monkeypatch.setattr(frontier, "train", lambda point, *_: started.append(point.time_steps))
    assert list(frontier.train_wanted(options)) == ["fixed-3-seed0"] and started == [2, 3]
    options.overrides = ["--config.epochs=2"]
    with pytest.raises(SystemExit, match=r"epochs=1 .* now they are .*epochs=2 "):
        frontier.train_wanted(options)
    options.no_training = True
    assert frontier.train_wanted(options) and started == [2, 3]


@pytest.mark.filterwarnings("ignore:.*arguments were not kept")
def test_runs_that_end_at_once_are_all_written(frontier, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    seeds = [str(seed) for seed in range(40)]
    arguments = [str(tmp_path), "--targets", "--fixed=3", "--jobs=8", "--seeds", *seeds]
    options = frontier.parse(arguments)
    wanted = frontier.points(options)
    for point in wanted:
        finish(tmp_path / point.name, 3, 3, 0.6)
    frontier.train_all(wanted, options)
    assert len(json.loads((tmp_path / "frontier.json").read_text())) == 40


def test_a_run_that_fails_leaves_the_others_written(frontier, tmp_path, monkeypatch, capsys):
    def train(point, options, cores):
        if point.kind == "learned":
            raise RuntimeError(f"{point.name} lost its data")
        finish(options.out / point.name, 3, 3, 0.6)

    monkeypatch.setattr(frontier, "train", train)
    options = frontier.parse([str(tmp_path), "--targets", "2", "--fixed", "3", "4"])
    with pytest.raises(RuntimeError, match="learned-2-of-4-seed0 lost its data"):
        frontier.train_all(frontier.points(options), options)
    assert list(json.loads((tmp_path / "frontier.json").read_text())) == [
        *("fixed-3-seed0", "fixed-4-seed0")
    ]
    assert "lost its data" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*arguments were not kept")
def test_a_network_that_was_evaluated_while_it_trained_is_not_finished(
    frontier, tmp_path, monkeypatch
):
    started = []
    monkeypatch.setattr(
        frontier.apart.subprocess, "run", lambda *_, **__: started.append(1) or Done()
    )
    options = frontier.parse([str(tmp_path), "--targets", "--fixed", "3"])
    (point,) = frontier.points(options)
    finish(tmp_path / point.name, 3, 3, 0.6)
    config = config_lib.default_config()
    config.epochs = 4
    (tmp_path / point.name / "config.json").write_text(config_lib.to_json(config))
    summary = json.loads((tmp_path / point.name / "summary.json").read_text())
    for steps, is_finished in ((500, False), (1001, True)):  # of 250.3 an epoch
        summary |= {"epochs": steps / 250.3, "steps": steps}
        (tmp_path / point.name / "summary.json").write_text(json.dumps(summary))
        frontier.train(point, options, None)
        assert (frontier.read(point, options) is not None) == is_finished
    assert started == [1]


class Done:
    returncode = 0


def test_every_run_gets_its_settings(frontier):
    options = frontier.parse(["out", "--targets", "1.5", "--fixed", "2", "--seeds", "0", "7"])
    assert [point.name for point in frontier.points(options)] == [
        *("learned-1.5-of-4-seed0", "fixed-2-seed0", "learned-1.5-of-4-seed7", "fixed-2-seed7")
    ]
    assert frontier.points(options)[1].overrides == [
        *("--config.model.time_steps=2", "--config.target_time_steps=2.0", "--config.seed=0"),
        "--config.spike_penalty=0.0",
    ]
    options = frontier.parse(["out", "--targets", "2", "--fixed", "--spike-penalties", "0.5"])
    (point,) = frontier.points(options)
    assert point.name == "learned-2-of-4-seed0-spikes0.5"
    assert point.overrides[-1] == "--config.spike_penalty=0.5"
    assert frontier.parse(["out", "--", "--config.epochs=1"]).overrides == ["--config.epochs=1"]


def test_paths_are_meant_from_the_folder_of_the_user(frontier, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        frontier.apart.subprocess,
        "run",
        lambda command, cwd, env, **_: started.append((command, cwd, env)) or Done(),
    )
    monkeypatch.chdir(tmp_path)
    options = frontier.parse(["out", "--fixed", "--targets=2", "--", "--config.data.dir=data"])
    frontier.train(frontier.points(options)[0], options, None)
    ((command, cwd, env),) = started
    assert f"--workdir={tmp_path}/out/learned-2-of-4-seed0" in command
    assert "--config.data.dir=data" in command and cwd is None
    assert env["PYTHONPATH"].split(":")[0] == str(PATH.parents[2])


def test_a_run_that_fails_tells_why(frontier, tmp_path):
    options = frontier.parse([str(tmp_path), "--config=no_such_file.py"])
    with pytest.raises(RuntimeError, match="no_such_file.py"):
        frontier.train(frontier.points(options)[0], options, None)


@pytest.mark.parametrize(
    "arguments", [["--targets", "5"], ["--jobs=0"], ["--targets", "0.5"], ["--spike-penalties=-1"]]
)
def test_bad_options_are_refused(frontier, arguments, capsys):
    with pytest.raises(SystemExit):
        frontier.parse(["out", *arguments])
    assert re.search("number, at least|must be at most", capsys.readouterr().err)


@pytest.mark.parametrize("text", ["[]", "{}", "3", '{"a": {}}', '{"a": {"kind": "fixed"}}'])
def test_results_of_another_kind_are_refused(frontier, tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(SystemExit, match="--results: .*a.json: this is no file as frontier.py"):
        frontier.read_results([tmp_path / "a.json"])


RESULT = {
    **{"kind": "learned", "time_steps": 4, "target": 2.0, "seed": 0, "spike_penalty": 0.0},
    **{"accuracy": 0.5, "split": "test", "examples": 100, "average_time_steps": 2.0},
    **{"energy_uj": 3.0, "seconds": 60.0},
}


def written(folder, **results):
    """Paths of JSON files, each with its networks."""
    for name, found in results.items():
        (folder / f"{name}.json").write_text(json.dumps(found))
    return [folder / f"{name}.json" for name in results]


def test_results_that_do_not_go_together_are_refused(frontier, tmp_path):
    paths = written(tmp_path, a={"x": RESULT, "y": RESULT}, b={"x": RESULT, "z": RESULT})
    assert list(frontier.read_results(paths)) == ["x", "y", "z"]
    paths = written(tmp_path, a={"x": RESULT}, b={"x": RESULT | {"accuracy": 0.6}})
    with pytest.raises(SystemExit, match=r"a.json and .*b.json say different things of x"):
        frontier.read_results(paths)
    for other in ({"split": "train[90%:]"}, {"examples": 99}):
        paths = written(tmp_path, a={"x": RESULT}, b={"y": RESULT | other})
        with pytest.raises(SystemExit, match=r"100 examples of test in .*a.json, .* in .*b.json"):
            frontier.read_results(paths)


@pytest.mark.parametrize("before", ['{"old": {}, "fixed-3-seed0": {}}', "[]", "{"])
def test_what_was_written_of_other_networks_stays(frontier, tmp_path, before):
    finish(tmp_path / "fixed-3-seed0", 3, 3, 0.6)
    (tmp_path / "frontier.json").write_text(before)
    options = frontier.parse([str(tmp_path), "--targets", "--fixed=3"])
    found = frontier.write(frontier.points(options), options)
    assert list(found) == ["fixed-3-seed0"]
    kept = json.loads((tmp_path / "frontier.json").read_text())
    assert kept == found | ({"old": {}} if "old" in before else {})


def test_networks_whose_energy_is_not_counted_are_shown_without(frontier, tmp_path):
    some = {"a": RESULT, "b": RESULT | {"seed": 1, "energy_uj": None}}
    every = {"c": RESULT | {"kind": "fixed", "target": 4, "energy_uj": None}}
    (path,) = written(tmp_path, a=some | every)
    found = frontier.read_results([path])
    assert "| 2.00 | 0.5000 | not counted | 1 min |" in frontier.table(found)
    means = frontier.spread(found)
    assert [(one["energy_uj"], one["energy_uj_sd"]) for one in means] == [(None, None)] * 2
    assert "| 0, 1 | 2.00 | 50.00 ± 0.00 | not counted |" in frontier.spread_table(means)
    steps, energy = frontier.draw(found | {"d": RESULT | {"target": 3.0}}).axes
    shown = [[len(bars[0].get_xdata()) for bars in ax.containers] for ax in (steps, energy)]
    assert shown == [[2, 1], [1, 0]]
    assert len(energy.get_legend().get_texts()) == 2
    assert frontier.figures.as_png(frontier.draw(every))
    del every["c"]["energy_uj"]
    with pytest.raises(SystemExit, match=r"a.json: this is no file as frontier.py writes it"):
        frontier.read_results(written(tmp_path, a=every))
