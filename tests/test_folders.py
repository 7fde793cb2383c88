"""A run's folder: who may write there and when, and that all a run needs lies in it."""

import dataclasses
import importlib
import json
import os
import re
import shutil
import signal

import jax
import numpy as np
import pytest
from flax import traverse_util
from tiny_run import lines_of, tiny_config

import snnvit_jax as snn
from snnvit_jax.checkpoints.checkpoints import Checkpoints, finished_checkpoints
from snnvit_jax.common import files
from snnvit_jax.data.decode import DamagedImage
from snnvit_jax.runs import (
    analysis,
    carry,
    command_line,
    commands,
    loop,
    restart,
    start,
    teachers,
    workdir,
)
from snnvit_jax.runs.clock import StepClock
from snnvit_jax.runs.workdir import Workdir


@pytest.fixture
def halved(copy):
    """The finished run as it was after half of its steps."""
    shutil.rmtree(copy / "checkpoints" / "16")
    Workdir(copy).cut_metrics(8)
    for name in ("summary.json", "schedule.json", "report.html"):
        (copy / name).unlink()
    return copy


def content(folder):
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.read_bytes() for path in paths}


def longer(epochs=3):
    config = tiny_config()
    config.epochs = epochs
    return config


# Who may write.


@pytest.mark.parametrize("left", ["nothing", "empty", "file", "link"])
def test_a_finished_run_without_its_checkpoints_does_not_begin_again(copy, left, tmp_path):
    place = copy / "checkpoints"
    shutil.rmtree(place)
    if left == "empty":
        place.mkdir()
    elif left == "file":
        place.touch()
    elif left == "link":  # to a disk that is not there today
        place.symlink_to(tmp_path / "scratch")
        (copy / "summary.json").unlink()  # nor does an unfinished one
    before = content(copy)
    message = (
        "is no folder, nor a link" if left in ("file", "link") else "finished run, but none of"
    )
    with pytest.raises(ValueError, match=message):
        loop.Run(tiny_config(), copy)
    assert content(copy) == before


def test_the_folder_is_locked_before_the_checkpoint_is_read(copy, monkeypatch):
    locked = []

    def restore(directory, template):
        with pytest.raises(workdir.InUseError), Workdir(copy).lock():
            pass
        locked.append(directory)
        return real(directory, template)

    real = loop.restore
    monkeypatch.setattr(loop, "restore", restore)
    run = loop.Run(longer(), copy)
    with pytest.raises(OSError, match=f"another process is training in the workdir {copy}"):
        loop.Run(longer(), copy)
    assert len(locked) == 1  # the second did not come so far
    run.close()
    loop.Run(longer(), copy).close()
    assert len(locked) == 2


def test_a_run_that_ends_or_cannot_begin_lets_go_of_its_folder(copy, monkeypatch):
    loop.Run(tiny_config(), copy).train()
    monkeypatch.setattr(loop, "restore", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loop.Run(tiny_config(), copy)
    with Workdir(copy).lock():
        pass


def test_a_file_system_without_locks_is_not_taken_for_another_process(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(workdir.fcntl, "flock", no_locks)
    with (
        pytest.raises(OSError, match=r"cannot lock .*: No locks available") as error,
        Workdir(tmp_path).lock(),
    ):
        pass
    assert not isinstance(error.value, workdir.InUseError)


# Evaluation of what is not finished, or not to be written to.


def evaluate(folder, config=None):
    return commands.evaluate(loop.Run(config or tiny_config(), folder, training=False))


def test_evaluating_an_unfinished_run_prints_and_writes_nothing(halved, capsys):
    before = content(halved)
    assert evaluate(halved) == 0
    printed = capsys.readouterr().out
    assert re.search(r"test accuracy 0\.\d{4} on 360 examples", printed)
    assert "note: the training has done 8 of 16 steps: summary.json and schedule.json" in printed
    assert "report" not in printed
    assert content(halved) == before


def test_evaluating_while_a_training_goes_on_writes_nothing(copy, capsys):
    (copy / "summary.json").unlink()
    with Workdir(copy).lock():
        assert evaluate(copy) == 0
    printed = capsys.readouterr().out
    assert "test accuracy" in printed
    assert "note: a training is going on in this folder" in printed
    assert not (copy / "summary.json").exists()


def test_a_training_that_went_on_meanwhile_is_left_alone(copy, finished):
    run = loop.Run(tiny_config(), copy, training=False)
    result = run.evaluate()
    before = (copy / "summary.json").read_text()
    (copy / "checkpoints" / "24").mkdir()
    assert "there is a checkpoint of step 24 by now" in run.write_results(result)
    assert (copy / "summary.json").read_text() == before


def test_a_finished_run_is_judged_by_its_own_length(copy):
    (copy / "summary.json").unlink()
    assert evaluate(copy, longer()) == 0
    assert json.loads((copy / "summary.json").read_text())["steps"] == 16


def test_in_a_folder_that_cannot_be_written_the_accuracy_is_printed(copy, capsys, monkeypatch):
    def read_only(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files, "write_bytes", read_only)
    assert evaluate(copy) == 0
    printed = capsys.readouterr().out
    assert re.search(
        r"test accuracy 0\.\d{4}.*\nnote: .* could not be written: .*Read-only", printed
    )
    monkeypatch.setattr(workdir.Workdir, "lock", read_only)
    assert evaluate(copy) == 0
    assert "test accuracy" in capsys.readouterr().out


def test_results_of_a_training_that_goes_on_are_put_aside(copy):
    assert Workdir(copy).is_finished()
    run = loop.Run(longer(), copy)
    run._train_one = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run.train()
    assert not (copy / "summary.json").exists()
    assert json.loads((copy / "summary-until-step-16.json").read_text())["steps"] == 16
    assert (copy / "schedule-until-step-16.json").exists()


@pytest.mark.parametrize(
    ("steps", "epochs", "expected"), [(16, 2, True), (15, 2, False), (8, 2, False), (24, 2, True)]
)
def test_a_summary_of_fewer_steps_is_not_that_of_the_end(copy, steps, epochs, expected):
    for name, value in (("steps", steps), ("epochs", steps * 180 / 1437)):
        summary = json.loads((copy / "summary.json").read_text()) | {name: value}
        (copy / "summary.json").write_text(json.dumps(summary))
    assert Workdir(copy).is_finished() == expected
    for damaged in ("", "null", "[1]"):
        (copy / "summary.json").write_text(damaged)
        assert not Workdir(copy).is_finished()


# Signals.


@pytest.fixture
def stopped_in_evaluation(monkeypatch):
    """A SIGTERM that comes in the first batch of the next evaluation; counts its batches."""
    batches = []

    def eval_step(*arguments, **options):
        batches.append(1)
        if len(batches) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **options)

    module = importlib.import_module("snnvit_jax.evaluation.evaluate")  # the name is a function's
    real = module.eval_step
    monkeypatch.setattr(module, "eval_step", eval_step)
    return batches


@pytest.mark.parametrize("step", [8, 16])
def test_a_signal_cuts_an_evaluation_short_and_loses_nothing(
    finished, tmp_path, stopped_in_evaluation, step, monkeypatch
):
    folder, config = tmp_path / "run", tiny_config()
    config.eval_every_epochs = 1.0 if step == 8 else 2.0
    config.save_every_seconds = 0.0
    run = loop.Run(config, folder)
    assert run.train() is None
    assert run.stop_signal == signal.SIGTERM
    assert stopped_in_evaluation == [1]  # of two
    assert finished_checkpoints(folder / "checkpoints")[-1][0] == step
    assert not (folder / "summary.json").exists()
    assert not [x for x in lines_of(folder) if "eval_accuracy" in x]
    summary = loop.Run(config, folder).train()
    assert summary["loss"] == finished[1]["loss"]
    evaluated = [x["step"] for x in lines_of(folder) if "eval_accuracy" in x]
    assert evaluated == ([8, 16] if step == 8 else [16])
    for done in evaluated:
        metrics = json.loads((folder / f"checkpoints/{done}/metrics/metrics").read_text())
        assert metrics["accuracy"] == next(
            x["eval_accuracy"]
            for x in lines_of(folder)
            if "eval_accuracy" in x and x["step"] == done
        )
    with Checkpoints(folder / "checkpoints") as checkpoints:
        assert checkpoints.steps[-1] == 16


def test_a_signal_while_a_finished_run_is_evaluated_stops_it(copy, stopped_in_evaluation):
    before = content(copy)
    run = loop.Run(tiny_config(), copy)
    assert run.train() is None
    assert (run.stop_signal, stopped_in_evaluation) == (signal.SIGTERM, [1])
    assert {path: x for path, x in content(copy).items() if "events" not in path.name} == {
        path: x for path, x in before.items() if "events" not in path.name
    }


def test_the_step_that_a_run_stops_at_is_logged(halved):
    run = loop.Run(tiny_config(), halved)
    take = run._train_one

    def stop_at_11(step, *arguments):
        if step == 11:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(step, *arguments)

    run._train_one = stop_at_11
    assert run.train() is None
    assert lines_of(halved)[-1]["step"] == 11
    assert run.step == finished_checkpoints(halved / "checkpoints")[-1][0] == 11


# Counts that go on.


def test_damaged_images_are_counted_from_where_an_earlier_run_ended():
    clock = StepClock(damaged_before=30)
    loss = (np.float32(0), np.float32(180 - 20))
    damaged = (np.float32(20), np.float32(1))
    clock.count({"loss": loss, "damaged_images": damaged, "not_finite": (np.zeros(3), 1)}, 180)
    assert clock.read()[0]["damaged_images"] == 50


def train_with_damage(folder, stop_at=None):
    """Trains from images of which one is damaged, perhaps until it is stopped at a step."""
    config = tiny_config()
    config.data.on_damaged = "skip"
    run = loop.Run(config, folder)
    image = run.experiment.train_source.examples[5]["image"]
    augment, take = run.experiment.augment, run._train_one

    def damaged(example, rng):
        if np.array_equal(example["image"], image):
            raise DamagedImage("example 5 is damaged")
        return augment(example, rng)

    def stopping(step, *arguments):
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(step, *arguments)

    run.experiment = dataclasses.replace(run.experiment, augment=damaged)
    run._train_one = stopping
    return run.train()


def test_a_continued_run_adds_its_damaged_images(tmp_path):
    straight = train_with_damage(tmp_path / "straight")["damaged_images"]
    assert train_with_damage(tmp_path / "run", stop_at=9) is None
    first = lines_of(tmp_path / "run")[-1]["damaged_images"]
    assert 1 <= first < straight
    assert train_with_damage(tmp_path / "run")["damaged_images"] == straight


# What a run needs lies in its folder.


def fine_tuning(source):
    config = tiny_config()
    config.init_from = str(source)
    return config


def test_a_fine_tuned_run_needs_its_origin_only_once(copy, tmp_path, capfd):
    config = fine_tuning(copy)
    config.epochs, config.time_step_anneal_epochs = 1, 0.5
    folder = tmp_path / "tuned"
    run = loop.Run(config, folder)
    first = jax.device_get(run.state.params)
    run._train_one = lambda *_: 1 / 0  # killed before the first step was done
    with pytest.raises(ZeroDivisionError):
        run.train()
    assert f"starting from checkpoint 16 of {copy}\n" in capfd.readouterr().err
    copy.rename(tmp_path / "elsewhere")
    run = loop.Run(config, folder)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(run.state.params), first)
    run.train()
    origin = json.loads((folder / "origin.json").read_text())
    assert origin == {
        **{"init_from": str(copy), "step": 16, "head": "kept"},
        "classes": list("0123456789"),
    }
    again = loop.Run(config, folder, training=False)
    assert again.evaluate().examples == 360
    _, path = again.export()
    assert snn.load_deployed(path).about["classes"] == list("0123456789")
    analysis.open_run(folder)
    config.epochs = 2
    assert loop.Run(config, folder).step == 8
    with pytest.raises(FileNotFoundError, match=f"init_from='{copy}' does not exist"):
        loop.Run(config, tmp_path / "new")


def test_a_run_keeps_its_teacher(copy, tmp_path):
    config = longer(1)
    config.time_step_anneal_epochs = 0.5
    config.distillation.teacher = str(copy)
    folder = tmp_path / "student"
    straight = loop.Run(config, tmp_path / "straight").train()
    run = loop.Run(config, folder)
    take = run._train_one

    def stop_at_3(step, *arguments):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(step, *arguments)

    run._train_one = stop_at_3
    assert run.train() is None
    copy.rename(tmp_path / "elsewhere")
    carry.pack(folder, tmp_path / "parts", 2**20)  # wherever the run goes, its teacher comes along
    carry.unpack(tmp_path / "parts", tmp_path / "there")
    assert loop.Run(config, tmp_path / "there").train()["loss"] == straight["loss"]
    weights = folder / "teacher" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match="own copy of its teacher is damaged: .*SHA-256 differs"):
        loop.Run(config, folder)
    shutil.rmtree(folder / "teacher")
    (folder / "teacher.sha256").unlink()
    with pytest.raises(FileNotFoundError, match="distillation.teacher=.* does not exist"):
        loop.Run(config, folder)
    config.distillation.teacher = str(tmp_path / "elsewhere")  # another place is read again
    assert loop.Run(config, folder).experiment.teacher == tmp_path / "elsewhere"


def test_a_trained_network_teaches_and_is_kept_too(tmp_path):
    config = longer(1)
    config.time_step_anneal_epochs = 0.5
    config.data.mean, config.data.std = (0.3,), (0.4,)
    config.distillation.teacher = "pretrained:digits_relu"
    run = loop.Run(config, tmp_path / "student")
    assert np.isfinite(run.train()["loss"])
    assert "teacher_agreement" in lines_of(tmp_path / "student")[0]
    kept = traverse_util.flatten_dict(teachers.load(tmp_path / "student" / "teacher", 10))
    wanted = traverse_util.flatten_dict(snn.load_pretrained("digits_relu").variables)
    assert kept.keys() == wanted.keys()
    assert all(np.array_equal(kept[key], wanted[key]) for key in wanted)
    assert loop.Run(config, tmp_path / "student").experiment.teacher.parent == tmp_path / "student"
    config.distillation.teacher = "pretrained:digits_rely"
    with pytest.raises(ValueError, match="did you mean 'digits_relu'"):
        loop.Run(config, tmp_path / "other")


def test_a_teacher_of_other_classes_is_refused(copy, tmp_path):
    names = ["three" if name == "3" else name for name in "0123456789"]
    (copy / "classes.json").write_text(json.dumps(names))
    config = tiny_config()
    config.distillation.teacher = str(copy)
    with pytest.raises(
        ValueError, match="other classes than this training: .*'three' is missing here"
    ):
        loop.Run(config, tmp_path / "student")
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize("use", ["train", "evaluate", "open"])
def test_other_classes_of_the_data_are_found(copy, use):
    names = ["three" if name == "3" else name for name in "0123456789"]
    (copy / "classes.json").write_text(json.dumps(names))
    before = content(copy)
    with pytest.raises(ValueError, match="'three' is missing now; 10 now, of which '3' is new"):
        if use == "open":
            analysis.open_run(copy)
        else:
            loop.Run(tiny_config(), copy, training=use == "train")
    assert content(copy) == before


def test_a_run_from_before_classes_were_kept_still_opens(copy, finished):
    (copy / "classes.json").unlink()
    assert loop.Run(tiny_config(), copy, training=False).evaluate().loss == finished[1]["loss"]
    analysis.open_run(copy)
    loop.Run(tiny_config(), copy).train()
    assert json.loads((copy / "classes.json").read_text()) == list("0123456789")


# Names of folders.


def test_a_home_is_a_home(monkeypatch, tmp_path, copy):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Workdir("~/x").path == tmp_path / "x"
    (tmp_path / "x.py").touch()
    assert command_line.located("--config=~/x.py:a") == f"--config={tmp_path}/x.py:a"
    assert command_line.located("--config.data.dir=~/x") == "--config.data.dir=~/x"  # by its reader
    carry.pack("~/work", "~/parts", 2**20)
    carry.unpack("~/parts", "~/there")
    assert (tmp_path / "there" / "config.json").exists()
    config = tiny_config()
    config.init_from = config.distillation.teacher = "~/there"
    run = loop.Run(config, "~/tuned")
    assert run.workdir.path == tmp_path / "tuned"
    assert run.experiment.teacher == tmp_path / "there"
    assert start.classes_of("~/there") == tuple("0123456789")


# Errors that may be gone the next time.


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file", "a.png"), OSError(28, "No space left")]
)
def test_a_file_that_fails_during_training_is_no_bad_input(error, halved):
    run = loop.Run(tiny_config(), halved)

    def fail(*_):
        raise error

    run._train_one = fail
    with pytest.raises(
        restart.PassingError, match=re.escape(f"{error} (while training in {halved}")
    ):
        commands.train(run)


def test_a_checkpoint_that_cannot_be_read_now_may_be_readable_later(halved, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(loop, "restore", fail)
    with pytest.raises(restart.PassingError, match="Input/output error"):
        loop.Run(tiny_config(), halved)
