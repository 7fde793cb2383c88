"""Looking into finished runs, and the experiments built on it, on two that hardly trained."""

import json
import pathlib
import shutil

import by_path
import jax
import numpy as np
import pytest
from quickly import QUICKLY

import snnvit_jax as snn
from snnvit_jax import training
from snnvit_jax.checkpoints.checkpoints import Checkpoints
from snnvit_jax.data import loader
from snnvit_jax.evaluation import metrics
from snnvit_jax.pretrained.catalogue import NETWORKS
from snnvit_jax.runs import analysis, experiment
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs.workdir import Workdir
from snnvit_jax.time_steps.schedule import with_schedule
from snnvit_jax.xla import backends

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
EXAMPLES = 200  # one full batch and a part of another


def script(name, file="run.py"):
    return by_path.module(EXPERIMENTS / name / file)


def create_run(folder, lively, steps=0, **settings):
    """A run's folder with a model that fires, after a few training steps on one batch."""
    config = config_lib.default_config()
    config.batch_size = 180
    config.data.image_size = 8
    config.model.update({"embed_dim": 16, "num_heads": 2, "depth": 1, "time_steps": 2})
    config.update_from_flattened_dict(settings)
    run = experiment.build(config)
    state = training.state_from_variables(run.procedure, lively(run.model, channels=1))
    losses = []
    if steps:
        with loader.eval_batches(run.train_source, run.preprocess, run.loader_options) as batches:
            batch = next(batches)
    for _ in range(steps):
        state, seen = training.train_step(state, batch, procedure=run.procedure)
        losses.append(float(metrics.means(jax.device_get(seen))["loss"]))
    Workdir(folder).write_config(config, 0)
    with Checkpoints(Workdir(folder).checkpoints) as checkpoints:
        checkpoints.save(1, state)
    return losses


@pytest.fixture(scope="module")
def opened(tmp_path_factory, lively):
    folder = tmp_path_factory.mktemp("spiking")
    create_run(folder, lively)
    return analysis.open_run(folder, EXAMPLES)


def test_a_trained_network_opens_like_a_run_with_the_data_it_was_trained_on():
    run, variables = analysis.open_run("pretrained:digits_learned")
    measured = snn.load_pretrained("digits_learned").about["measured"]
    found = analysis.evaluate(run, variables)
    assert (found.split, found.examples) == (measured["split"], measured["examples"])
    assert found.accuracy == measured["accuracy"]
    assert found.energy.microjoule == pytest.approx(measured["energy_uj"]["add"], rel=1e-6)


def test_what_a_trained_network_lacks_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"'digits_lerned' \(did you mean 'digits_learned'"):
        analysis.open_run("pretrained:digits_lerned")
    folder = shutil.copytree(NETWORKS / "digits_learned", tmp_path / "own")
    about = json.loads((folder / "config.json").read_text())
    del about["trained"]["config"]
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="own/config.json does not say how the network was"):
        analysis.open_run(folder)
    about["trained"]["config"], about["classes"][3] = {}, "three"
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="own was trained on: 10 classes then, of which 'three'"):
        analysis.open_run(folder)


@pytest.fixture(scope="module")
def twin(tmp_path_factory, lively):
    """The same architecture with ReLU, and the losses of its first training steps."""
    folder = tmp_path_factory.mktemp("relu")
    settings = {"model.neuron.kind": "relu", "model.time_steps": 1, "optimizer.warmup_epochs": 0.0}
    losses = create_run(folder, lively, steps=8, **settings)
    return *analysis.open_run(folder, EXAMPLES), losses


@pytest.fixture(scope="module")
def evaluated(opened):
    return analysis.evaluate(*opened)


@pytest.fixture(scope="module")
def at_once(opened):
    """All labels, and a function: schedule -> (logits, spikes) of all images."""
    run, variables = opened
    examples = [run.preprocess(example) for example in run.eval_source.examples]
    images, labels = (np.stack([e[key] for e in examples]) for key in ("image", "label"))
    images = run.normalization(images)
    apply = jax.jit(lambda v: run.model.apply(v, images, mutable=["spikes"]))

    def under(schedule):
        logits, seen = apply(snn.with_schedule(variables, schedule))
        return logits, snn.spikes(seen)

    return labels, under


# ---------------------------------------------------------------- opening and cutting


def test_folders_without_a_finished_run_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no run: there is no config\.json"):
        analysis.open_run(tmp_path)
    Workdir(tmp_path).write_config(config_lib.default_config(), 0)
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        analysis.open_run(tmp_path)
    with pytest.raises(ValueError, match="examples=0 must be at least 1"):
        analysis.open_run(tmp_path, examples=0)


@pytest.mark.parametrize(("count", "expected"), [(3, [0, 1, 3]), (9, [0, 1, 2, 3, 4])])
def test_some_examples_are_from_all_over_a_sequence(count, expected):
    some = analysis.EvenlySpaced(range(5), count)
    assert list(some) == [some[i] for i in range(len(some))] == expected
    assert some[-1] == expected[-1]
    for outside in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            some[outside]


def test_some_examples_of_sorted_folders_are_of_every_class():
    labels = [label for label in range(10) for _ in range(37)]
    for count in (10, 64, 369):
        assert set(analysis.EvenlySpaced(labels, count)) == set(range(10))


def test_a_module_is_cut_and_nothing_else():
    masks = {"a/x_lif": [1, 0, 1], "a/y_lif": [0, 1, 1], "b/m/x_lif": [1, 1, 1]}
    schedule = snn.TimeStepSchedule(masks)
    cut = analysis.cut(schedule, "a", 2)
    assert cut == snn.TimeStepSchedule(masks | {"a/x_lif": [1, 0, 0], "a/y_lif": [0, 1, 0]})
    assert analysis.cut(schedule, "b", 0).layers == {"a/x_lif": 2, "a/y_lif": 2, "b/m/x_lif": 0}
    assert analysis.cut(schedule, "b/m", 3) == schedule
    assert analysis.all_steps(schedule).average == 3


@pytest.mark.parametrize(
    ("module", "steps", "message"),
    [("b", 1, "no layer belongs to module='b'; modules: a"), ("a", 3, "steps=3"), ("a", -1, "-1")],
)
def test_what_cannot_be_cut_is_named(module, steps, message):
    with pytest.raises(ValueError, match=message):
        analysis.cut(snn.TimeStepSchedule({"a/x_lif": [1, 0]}), module, steps)


# ---------------------------------------------------------------- a whole split


def test_the_split_is_counted_batch_by_batch_as_at_once(evaluated, at_once):
    labels, under = at_once
    logits, spikes = under(evaluated.schedule)
    assert evaluated.examples == evaluated.energy.examples == EXAMPLES == len(labels)
    assert evaluated.accuracy == np.mean(np.argmax(np.asarray(logits), -1) == labels)
    for name, emitted in spikes.items():
        by_step = np.asarray(emitted).reshape(2, -1)
        counted = evaluated.energy.counts["active"][name]
        np.testing.assert_array_equal(counted, by_step.sum(1))
        np.testing.assert_allclose(evaluated.firing_rates[name], by_step.mean(1), rtol=1e-6)
    fired = np.asarray(spikes["block_0/mlp/fc1_lif"]).sum()
    fed = evaluated.energy.layers["block_0/mlp/fc2_linear"].accumulates.sum()
    np.testing.assert_allclose(fed * EXAMPLES, 16 * fired)
    assert evaluated.energy.not_spiking == ["patch_embed/proj_conv", "head"]


def test_layers_of_several_batches_stand_in_forward_order(opened, evaluated):
    names = snn.layer_names(opened[0].model, channels=1)
    assert list(evaluated.firing_rates) == list(evaluated.schedule.masks) == names
    assert list(evaluated.energy.neurons) == names != sorted(names)


def test_accuracies_under_schedules_are_those_of_the_changed_models(opened, evaluated, at_once):
    learned = evaluated.schedule
    schedules = [learned, analysis.cut(learned, "block_0", 1), analysis.cut(learned, "block_0", 0)]
    found = analysis.accuracies(*opened, [*schedules, learned])
    assert found[0] == found[-1] == evaluated.accuracy
    labels, under = at_once
    for schedule, accuracy in zip(schedules, found, strict=False):
        assert accuracy == np.mean(np.argmax(np.asarray(under(schedule)[0]), -1) == labels)


def test_the_relu_twin_is_trained_like_any_model(twin):
    run, variables, losses = twin
    assert run.model.config.neuron.kind == "relu"
    assert losses[-1] < 0.9 * losses[0]
    assert snn.TimeStepSchedule.from_variables(variables).average == 1


# ---------------------------------------------------------------- experiments


def test_sensitivity_ends_where_nothing_is_cut(opened, evaluated):
    module = script("sensitivity")
    result = json.loads(json.dumps(module.measure(*opened)))
    assert result["examples"] == EXAMPLES
    assert result["uncut"]["learned"] == evaluated.accuracy
    for start, cuts in result["cut"].items():
        assert set(cuts) == {"patch_embed", "block_0/attn", "block_0/mlp"}
        for accuracies in cuts.values():
            assert len(accuracies) == 3
            assert accuracies[-1] == result["uncut"][start]
    axes = module.draw(result).axes
    assert [t.get_text() for t in axes[0].get_yticklabels()] == list(cuts)
    assert len(axes[1].texts) == 3 * 3


def test_histograms_count_every_neuron_of_every_image(opened, twin, evaluated, at_once):
    module = script("activation_histograms")
    result = json.loads(json.dumps(module.measure(opened, twin[:2])))
    spikes = at_once[1](evaluated.schedule)[1]
    means = [np.asarray(x).mean(0).reshape(-1) for n, x in spikes.items() if "block" in n]
    values = np.concatenate(means)
    block = result["snn"]["block_0"]
    np.testing.assert_array_equal(block["edges"], [-0.25, 0.25, 0.75, 1.25])
    expected = [(values == mean).sum() for mean in (0, 0.5, 1)]
    np.testing.assert_array_equal(block["counts"], expected)
    np.testing.assert_allclose(block["mean"], values.mean(), rtol=1e-5)
    np.testing.assert_allclose(block["zero_share"], (values == 0).mean())
    relu = result["ann"]["block_0"]
    assert sum(relu["counts"]) == values.size
    assert 0 < relu["zero_share"] < 1
    assert len(module.draw(result).axes) == 4


def test_histograms_want_a_spiking_run_and_its_twin(opened, twin):
    module = script("activation_histograms")
    with pytest.raises(
        ValueError, match=r"must spike and the second use ReLU, got .*'relu'.*'lif'"
    ):
        module.measure(twin[:2], opened)


def test_the_energy_table_compares_schedules_with_a_plain_transformer(opened, evaluated):
    module = script("energy")
    found = module.measure(*opened)
    rows = [line.strip("| ").split(" | ") for line in module.markdown(found).splitlines()]
    assert [row[0] for row in rows[2:]] == [*found, "plain vision transformer"]
    np.testing.assert_allclose(float(rows[2][5]), evaluated.energy.microjoule, rtol=1e-3)
    np.testing.assert_allclose(float(rows[-1][5]), evaluated.energy.plain_microjoule, rtol=1e-3)
    assert rows[2][2] == f"{evaluated.schedule.average:.2f} of 2"
    assert found["all time steps"].schedule.average == 2


def test_deployment_is_measured_beside_the_masked_model_and_onnx(opened, monkeypatch):
    module = script("deploy", "measure.py")
    run, variables = opened
    schedule = snn.TimeStepSchedule.from_variables(variables)
    fewer = with_schedule(variables, analysis.cut(schedule, "block_0", 1))
    monkeypatch.setattr(backends, "compiler_options", lambda: QUICKLY)
    (measured,) = module.measure(run, fewer, module.onnxruntime(), [EXAMPLES], duration=1e-3)
    measured = json.loads(json.dumps(measured))
    programs, equality = measured["programs"], measured["equality"]
    assert list(programs) == [module.MASKED, module.EVERYTHING, module.LEARNED, module.ONNX]
    assert all(0 < cost["fastest"] <= cost["seconds"] for cost in programs.values())
    masked, everything, learned, by_onnx = (cost["flops"] for cost in programs.values())
    assert masked >= everything > learned > 0
    assert by_onnx is None
    assert (equality["images"], measured["repetitions"]) == (EXAMPLES, 7)
    assert 0 < equality["accuracy_masked"] < 1
    for name in ("accuracy_deployed", "onnx_accuracy"):
        assert equality[name] == equality["accuracy_masked"]
    for name in ("", "onnx_"):
        assert equality[f"{name}images_with_another_prediction"] == 0
        assert equality[f"{name}largest_logit_difference"] < 1e-4
    assert all(size > 10_000 for size in measured["files"].values())


def test_logits_apart_are_counted_by_image():
    module = script("deploy", "measure.py")
    one = np.array([[1.0, 0], [1, 0], [1, 0]])
    other = np.array([[1.0, 0], [1, 2], [1, 1e-5]])
    assert module.apart(one, other) == {
        "median_logit_difference": 1e-5,
        "largest_logit_difference": 2,
        "images_with_a_flipped_spike": 1,
        "images_with_another_prediction": 1,
    }
