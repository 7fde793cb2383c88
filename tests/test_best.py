"""--checkpoint=best: which checkpoint is shown, where its results go, and what they say of it."""

import json

import jax
import jax.numpy as jnp
import pytest
from tiny_run import tiny_config

from snnvit_jax.checkpoints import Checkpoints, Measured, load_variables
from snnvit_jax.runs import classes, commands, experiment, loop, networks, publishing
from snnvit_jax.runs.workdir import Workdir


@pytest.fixture(scope="module")
def started():
    return experiment.build(tiny_config())


@pytest.fixture(scope="module")
def folder(started, tmp_path_factory):
    """A finished run whose checkpoint 8 was the most accurate one within the budget."""
    workdir = Workdir(tmp_path_factory.mktemp("run") / "work")
    workdir.path.mkdir()
    workdir.write_config(tiny_config(), 0)
    classes.save(workdir, started.train_source.class_names)
    # Any numbers do, and these need no compilation.
    shapes = started.state_shapes
    state = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5, leaf.dtype), shapes)
    with Checkpoints(workdir.checkpoints, keep=1) as checkpoints:
        for step, measured in (
            (4, Measured(0.9, "val[:50%]", on_budget=False)),
            (8, Measured(0.75, "val[:50%]")),
            (16, Measured(0.5, "val[:50%]")),
        ):
            params = jax.tree.map(lambda leaf, step=step: leaf + 0.001 * step, state.params)
            checkpoints.save(step, state.replace(step=jnp.int32(step), params=params), measured)
    return workdir.path


def run_of(folder, checkpoint="best"):
    return loop.Run(tiny_config(), folder, training=False, checkpoint=checkpoint)


def test_the_best_is_evaluated_beside_the_last_and_says_what_chose_it(folder, capsys):
    assert commands.report(run_of(folder)) == 0
    printed = capsys.readouterr().out
    assert "the best checkpoint, step 8: chosen by its accuracy of 0.7500 on 'val[:50%]'" in printed
    assert f"summary {folder}/best/summary.json\nreport  {folder}/best/report.html" in printed
    summary = json.loads((folder / "best" / "summary.json").read_text())
    assert (summary["checkpoint"], summary["steps"], summary["split"]) == ("best", 8, "test")
    assert (summary["chosen_on"], summary["chosen_by_accuracy"]) == ("val[:50%]", 0.75)
    page = (folder / "best" / "report.html").read_text()
    assert "best checkpoint, step 8: chosen by its accuracy of 0.7500 on &#x27;val[:50%]" in page
    assert not (folder / "summary.json").exists()
    assert not (folder / "report.html").exists()
    assert run_of(folder, "last").step == 16


def test_the_best_is_exported_into_its_own_folder(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(networks, "deploy_run", lambda *x: seen.append(x[2]) or Nothing())
    for checkpoint, place in (("best", folder / "best"), ("last", folder)):
        assert run_of(folder, checkpoint).export()[1] == place / "deployed.snn"
    kernels = [variables["params"]["head"]["kernel"] for variables in seen]
    assert kernels[1] - kernels[0] == pytest.approx(0.008, abs=1e-6)


class Nothing:
    def save(self, path):
        pass

    save_weights = save


@pytest.mark.parametrize("word", ["Best", "newest", "", None, ["best"]])
def test_another_word_than_last_and_best_is_refused_everywhere(folder, tmp_path, word):
    for use in (
        lambda: load_variables(folder / "checkpoints", word),
        lambda: run_of(folder, word),
        lambda: loop.Run(tiny_config(), tmp_path / "new", checkpoint=word),
        lambda: publishing.publish(folder, tmp_path / "out", {}, which=word),
    ):
        with pytest.raises(ValueError, match="^checkpoint=.* must be one of last, best"):
            use()
    assert not list(tmp_path.iterdir())


def test_results_on_the_split_that_chose_are_said_to_be_flattered(folder):
    run = run_of(folder)
    assert "flatter" in run.describe_choice("val[:50%]")
    assert "flatter" not in run.describe_choice("test")
    assert run_of(folder, "last").describe_choice("test") == (
        "the last checkpoint, step 16: no accuracy chose it"
    )


def test_training_goes_on_from_the_last_and_puts_the_results_of_the_best_aside(folder):
    (folder / "best").mkdir(exist_ok=True)
    (folder / "best-until-step-16").mkdir(exist_ok=True)
    config = tiny_config()
    config.epochs = 3
    run = loop.Run(config, folder)
    try:
        assert run.step == 16
        run.workdir.put_results_aside(16)
    finally:
        run.close()
    assert not (folder / "best").exists()
    assert (folder / "best-until-step-16").is_dir()


def test_a_run_without_a_best_is_named(folder, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ValueError, match=rf"no best checkpoint is recorded in {work}/checkpoints"):
        run_of(work)
