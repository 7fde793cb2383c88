import base64
import dataclasses
import json
import os
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_run import lines_of, tiny_config

import snnvit_jax as snn
from snnvit_jax.data.decode import DamagedImage
from snnvit_jax.runs import carry, commands, loop, teachers


def test_the_folder_holds_what_is_promised(finished):
    names = {path.name for path in finished[0].iterdir()}
    assert names >= {
        *("config.json", "metrics.jsonl", "checkpoints", "tensorboard"),
        *("schedule.json", "summary.json", "energy.json", "report.html"),
        *("time_steps.png", "firing_rates.png", "curves.png", "confusion.png", "energy.png"),
    }


def test_the_summary_has_its_keys_and_agrees_with_the_schedule(finished):
    folder, summary = finished
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert set(summary) == {
        *("accuracy", "loss", "split", "examples", "average_time_steps", "time_steps", "epochs"),
        *("steps", "seconds", "images_per_second", "energy_uj", "firing_rate", "devices"),
        *("data_wait_fraction", "damaged_images", "dead_layers", "saturated_layers"),
        "checkpoint",
    }
    # 1,437 examples in batches of 180: an epoch ends within its eighth step.
    assert (summary["examples"], summary["steps"]) == (360, 16)
    assert summary["epochs"] == pytest.approx(16 * 180 / 1437)
    schedule = snn.TimeStepSchedule.load(folder / "schedule.json")
    assert 1 <= schedule.average == summary["average_time_steps"] < 2
    assert summary["energy_uj"] > 0


def test_metrics_are_written_as_training_goes(finished):
    training = [line for line in lines_of(finished[0]) if "loss" in line]
    assert [line["step"] for line in training] == [2, 4, 6, 8, 10, 12, 14, 16]
    for key in ("epoch", "accuracy", "average_time_steps", "images_per_second", "learning_rate"):
        assert all(isinstance(line[key], float) for line in training)
    assert all(line[f"{what}_norm"] > 0 for what in ("gradient", "update") for line in training)
    evaluations = [line for line in lines_of(finished[0]) if "eval_accuracy" in line]
    assert [line["step"] for line in evaluations] == [8, 16]
    for line in evaluations:
        steps = [x for name, x in line.items() if name.startswith("eval_time_steps/")]
        assert len(steps) > 2 and 1 <= np.mean(steps) <= 2
    assert list((finished[0] / "tensorboard").glob("events.*"))


def test_the_report_is_self_contained_and_its_figures_are_images(finished):
    folder = finished[0]
    page = (folder / "report.html").read_text()
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 5
    for source in sources:
        kind, data = source.split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    assert "http" not in re.sub(r'src="[^"]*"', "", page)
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            assert np.asarray(image).std() > 5


def test_a_finished_run_is_only_evaluated_again(copy, finished):
    before = lines_of(copy)
    summary = loop.Run(tiny_config(), copy).train()
    assert summary["loss"] == finished[1]["loss"]
    assert lines_of(copy) == before


def test_more_epochs_and_another_optimizer_continue_a_run(copy, capsys):
    config = tiny_config()
    config.epochs = 3
    config.optimizer.clip_norm, config.optimizer.multipliers = 1.0, (("head", 0.5),)
    config.trainable = "scores"
    summary = loop.Run(config, copy).train()
    assert summary["steps"] == 24
    output = capsys.readouterr()
    said = output.err + output.out
    assert "changed: epochs: 2.0 -> 3.0: the schedule stays as planned, to epoch 2; after" in said
    assert said.index("changed: trainable: all -> scores") < said.index(
        "epoch 3.006: test accuracy"
    )
    added = [line for line in lines_of(copy) if line["step"] > 16 and "loss" in line]
    assert [line["learning_rate"] for line in added] == pytest.approx([1e-5] * 4)
    assert (copy / "config-until-step-16.json").exists()
    assert [line["step"] for line in lines_of(copy)] == sorted(
        line["step"] for line in lines_of(copy)
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("model.time_steps", 3), ("model.embed_dim", 32), ("data.name", "other")),
        *(("seed", 5), ("batch_size", 90)),
    ],
)
def test_a_folder_of_another_run_is_refused_and_left_alone(copy, key, value):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    config = tiny_config()
    config.update_from_flattened_dict({key: value})
    if key == "data.name":
        config.update_from_flattened_dict({"data.name": "digits"})
        text = (copy / "config.json").read_text().replace('"digits"', '"mnist"')
        (copy / "config.json").write_text(text)
        before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    with pytest.raises(ValueError, match=f"holds another run .*{key}"):
        loop.Run(config, copy)
    assert before == {path: path.stat().st_mtime_ns for path in copy.rglob("*")}


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(OSError, match=f"cannot write to the workdir {blocked}/run"):
        loop.Run(tiny_config(), blocked / "run")


def test_a_full_disk_is_found_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000)
    )
    with pytest.raises(OSError, match="0 MB of free space, but the run needs"):
        loop.Run(tiny_config(), tmp_path / "run")


@pytest.mark.parametrize("seen_by", ["the gradient from head", "a parameter is"])
def test_numbers_that_are_not_finite_stop_and_keep_the_last_checkpoint(copy, seen_by):
    config = tiny_config()
    config.epochs = 3
    run = loop.Run(config, copy)
    head = run.state.params["head"]
    kernel = head["kernel"].at[0, 0].set(jnp.nan)
    if seen_by == "a parameter is":  # behind the logged loss, at the moment of saving
        kernel, config.log_every_steps = head["kernel"], 100
        run._evaluate_and_log = lambda step, log: poison(run)
    run.state = run.state.replace(params=run.state.params | {"head": head | {"kernel": kernel}})
    with pytest.raises(FloatingPointError, match=f"{seen_by}.*the last good checkpoint"):
        run.train()
    assert int(loop.Run(config, copy, training=False).state.step) == 16


@pytest.mark.parametrize("on_nonfinite", ["stop", "skip"])
def test_a_batch_that_gives_no_numbers_is_named(copy, capsys, on_nonfinite):
    config = tiny_config()
    config.epochs, config.on_nonfinite = 3, on_nonfinite
    run = loop.Run(config, copy)
    step = int(run.state.step) + 3
    examples = run.experiment.examples_of(step)
    augment, image = run.experiment.augment, run.experiment.train_source.examples[examples[5]]

    def poisoned(example, rng):
        found = augment(example, rng)
        if np.array_equal(example["image"], image["image"]):
            found["image"] = found["image"] * np.nan
        return found

    run.experiment = dataclasses.replace(run.experiment, augment=poisoned)
    message = (
        f"in step {step}, not finite: the activations of patch_embed/proj_bn .*"
        f"training examples of its batch: {', '.join(map(str, examples))}"
    )
    if on_nonfinite == "stop":
        with pytest.raises(FloatingPointError, match=message):
            run.train()
        assert int(loop.Run(config, copy, training=False).state.step) == step - 3
    else:
        assert run.train()["accuracy"] >= 0
        output = capsys.readouterr()
        assert re.search(f"skipped: {message}", output.out + output.err)
        assert lines_of(copy)[-2]["skipped_steps"] == 1


class SomeDamaged:
    """The examples of a source, of which some cannot be decoded."""

    def __init__(self, examples, damaged):
        self.examples, self.damaged = examples, damaged

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        if index in self.damaged:
            raise DamagedImage(f"image {index} is damaged")
        return self.examples[index]


def test_damaged_images_are_counted_and_an_odd_batch_without_them_is_mixed(tmp_path):
    config = tiny_config()
    config.epochs, config.time_step_anneal_epochs = 1, 0.5
    config.batch_size = 179
    config.mixing.mixup_alpha = config.mixing.cutmix_alpha = 0.5
    config.data.on_damaged = "skip"
    run = loop.Run(config, tmp_path / "work")
    experiment = run.experiment
    plain = [experiment.examples_of(step) for step in range(1, experiment.total_steps + 1)]
    source = experiment.train_source
    source = dataclasses.replace(source, examples=SomeDamaged(source.examples, set(range(50))))
    run.experiment = dataclasses.replace(experiment, train_source=source)
    summary = run.train()
    assert summary["damaged_images"] == np.sum(np.array(plain) < 50) >= 49
    for step, own in enumerate(plain, 1):
        found, own = np.array(run.experiment.examples_of(step)), np.array(own)
        assert found.min() >= 50
        assert (found[own >= 50] == own[own >= 50]).all()


def poison(run):
    params = jax.tree.map(lambda leaf: leaf * jnp.nan, run.state.params)
    run.state = run.state.replace(params=params)


def test_weights_that_are_not_finite_are_not_evaluated(copy):
    run = loop.Run(tiny_config(), copy, training=False)
    head = run.state.params["head"]
    head = head | {"bias": head["bias"].at[3].set(jnp.inf)}
    run.state = run.state.replace(params=run.state.params | {"head": head})
    with pytest.raises(ValueError, match=r"'params/head/bias' holds 1 values .*, inf at \(3,\)"):
        run.evaluate()


def test_a_training_starts_from_a_run_of_fewer_time_steps(finished, tmp_path):
    config = tiny_config()
    config.init_from, config.model.time_steps = str(finished[0]), 3
    with pytest.warns(UserWarning, match="have 2 time steps, this model 3: those added start act"):
        state = loop.Run(config, tmp_path / "more").state
    expected = snn.TimeStepSchedule.load(finished[0] / "schedule.json").resized(3)
    assert snn.TimeStepSchedule.from_variables({"params": state.params}) == expected


def test_two_processes_cannot_train_in_one_folder(copy):
    run = loop.Run(tiny_config(), copy)
    with pytest.raises(OSError, match=f"another process is training in the workdir {copy}"):
        loop.Run(tiny_config(), copy)
    run.close()


def test_evaluating_reads_a_folder_and_changes_nothing(copy, finished, tmp_path):
    (copy / "checkpoints" / "24.orbax-checkpoint-tmp").mkdir()  # as a run in progress has it
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    result = loop.Run(tiny_config(), copy, training=False).evaluate()
    assert result.loss == finished[1]["loss"]
    assert before == {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    with pytest.raises(ValueError, match="holds no checkpoint to evaluate"):
        loop.Run(tiny_config(), tmp_path / "none", training=False)
    assert not (tmp_path / "none").exists()


def test_a_configuration_that_is_none_is_named(copy):
    (copy / "config.json").write_text("[1")
    with pytest.raises(ValueError, match=f"{copy}/config.json is not a run's configuration"):
        loop.Run(tiny_config(), copy)


def test_a_truncated_checkpoint_costs_only_the_steps_since_the_one_before(copy, finished, caplog):
    newest = copy / "checkpoints" / "16"
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=os.path.getsize)
    os.truncate(largest, largest.stat().st_size // 2)
    run = loop.Run(tiny_config(), copy)
    assert int(run.state.step) == 8
    assert "checkpoint 16" in caplog.text
    assert run.train()["loss"] == finished[1]["loss"]


def test_a_run_goes_on_exactly_where_it_was_carried_to(copy, finished, tmp_path):
    shutil.rmtree(copy / "checkpoints" / "16")  # as it was after half of the training
    carry.pack(copy, tmp_path / "parts", 16 * 2**10)
    assert carry.unpack(tmp_path / "parts", tmp_path / "there") == 8
    run = loop.Run(tiny_config(), tmp_path / "there")
    assert int(run.state.step) == 8
    assert run.train()["loss"] == finished[1]["loss"]
    losses = [[x["loss"] for x in lines_of(f) if "loss" in x] for f in (tmp_path / "there", copy)]
    assert losses[0] == losses[1]


def test_a_run_follows_a_teacher_and_is_read_without_it(finished, tmp_path):
    teacher = shutil.copytree(finished[0], tmp_path / "teacher")
    config = tiny_config()
    config.epochs, config.time_step_anneal_epochs = 1, 0.5
    config.distillation.teacher = str(teacher)
    loop.Run(config, tmp_path / "work").train()
    agreements = [x["teacher_agreement"] for x in lines_of(tmp_path / "work") if "loss" in x]
    assert agreements
    assert all(0 <= x <= 1 for x in agreements)
    teacher.rename(tmp_path / "elsewhere")
    loop.Run(config, tmp_path / "work", training=False).evaluate()
    with pytest.raises(FileNotFoundError, match=f"distillation.teacher='{teacher}' does not exist"):
        loop.Run(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_teacher_for_other_classes_is_refused(finished):
    with pytest.raises(ValueError, match="tells 10 classes apart, this training 7"):
        teachers.load(finished[0], 7)


@pytest.mark.parametrize(
    ("target", "told"), [(None, False), (1.5, True), (1.63, False), (2, False)]
)
def test_a_target_that_was_missed_is_told(capsys, target, told):
    commands._note_missed_target(target, 1.63)
    assert ("1.63 time steps are above target_time_steps=1.5" in capsys.readouterr().out) == told
