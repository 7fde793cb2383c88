"""Looking into finished runs, and the experiments built on it, on two that hardly trained."""

import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest

import snnvit_jax as snn
from snnvit_jax import analysis, evaluation, loop, recording
from snnvit_jax import config as config_lib
from snnvit_jax.checkpoint import Checkpoints
from snnvit_jax.workdir import Workdir

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
EXAMPLES = 200  # one full batch and a part of another


def script(name):
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / name / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def create_run(folder, lively, **settings):
    """A run's folder with a model that fires, as if it had taken a step."""
    config = config_lib.default_config()
    config.batch_size = 180
    config.data.image_size = 8
    config.model.update({"embed_dim": 16, "num_heads": 2, "depth": 1, "time_steps": 2})
    config.update_from_flattened_dict(settings)
    run = loop.Run(config, folder)
    run.workdir.write_config(config)
    variables = lively(run.experiment.model, channels=1)
    state = run.state.replace(step=run.state.step + 1, **variables)
    with Checkpoints(run.workdir.checkpoints) as checkpoints:
        checkpoints.save(1, state)
    return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, lively):
    return create_run(tmp_path_factory.mktemp("runs") / "snn", lively)


@pytest.fixture(scope="module")
def twin(tmp_path_factory, lively):
    settings = {"model.neuron.kind": "relu", "model.time_steps": 1}
    return create_run(tmp_path_factory.mktemp("runs") / "ann", lively, **settings)


@pytest.fixture(scope="module")
def opened(workdir):
    return analysis.open_run(workdir, EXAMPLES)


@pytest.fixture(scope="module")
def evaluated(opened):
    experiment, variables = opened
    return evaluation.evaluate(
        experiment.model,
        variables,
        experiment.eval_source,
        experiment.preprocess,
        batch_size=180,
        mesh=experiment.mesh,
        progress=False,
    )


def images_and_labels(experiment):
    examples = [experiment.preprocess(example) for example in experiment.eval_source.examples]
    return (np.stack([example[key] for example in examples]) for key in ("image", "label"))


# ---------------------------------------------------------------- opening and cutting


def test_folders_without_a_finished_run_are_refused(tmp_path, workdir):
    with pytest.raises(FileNotFoundError, match=r"holds no run: there is no config\.json"):
        analysis.open_run(tmp_path)
    Workdir(tmp_path).write_config(Workdir(workdir).read_config())
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        analysis.open_run(tmp_path)
    with pytest.raises(ValueError, match="examples=0 must be at least 1"):
        analysis.open_run(workdir, examples=0)


@pytest.mark.parametrize(("count", "expected"), [(3, [0, 1, 2]), (9, [0, 1, 2, 3, 4])])
def test_the_first_examples_of_a_sequence(count, expected):
    first = analysis.First(range(5), count)
    assert list(first) == [first[i] for i in range(len(first))] == expected
    assert first[-1] == expected[-1]
    with pytest.raises(IndexError):
        first[len(expected)]


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


def test_the_split_is_counted_batch_by_batch_as_at_once(opened, evaluated):
    experiment, variables = opened
    images, labels = images_and_labels(experiment)
    at_once = snn.energy_report(experiment.model, variables, images)
    assert evaluated.examples == evaluated.energy.examples == EXAMPLES == len(labels)
    jax.tree.map(np.testing.assert_array_equal, evaluated.energy.counts, at_once.counts)
    assert json.loads(evaluated.energy.to_json()) == json.loads(at_once.to_json())
    assert evaluated.firing_rate == np.mean([n.rates for n in at_once.neurons.values()])


def test_accuracies_under_schedules_are_those_of_the_changed_models(opened, evaluated):
    experiment, variables = opened
    learned = evaluated.schedule
    schedules = [learned, analysis.cut(learned, "block_0", 1), analysis.cut(learned, "block_0", 0)]
    found = analysis.accuracies(experiment, variables, [*schedules, learned])
    assert found[0] == found[-1] == evaluated.accuracy
    images, labels = images_and_labels(experiment)
    apply = jax.jit(experiment.model.apply)
    for schedule, accuracy in zip(schedules, found, strict=False):
        logits = apply(snn.with_schedule(variables, schedule), images)
        assert accuracy == np.mean(np.argmax(logits, -1) == labels)


# ---------------------------------------------------------------- experiments


def test_sensitivity_ends_where_nothing_is_cut(workdir, evaluated):
    module = script("sensitivity")
    result = json.loads(json.dumps(module.measure(workdir, EXAMPLES)))
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


def test_histograms_count_every_neuron_of_every_image(workdir, twin, opened):
    module = script("activation_histograms")
    result = json.loads(json.dumps(module.measure(workdir, twin, EXAMPLES)))
    experiment, variables = opened
    images, _ = images_and_labels(experiment)
    seen = experiment.model.apply(variables, images, mutable=["spikes"])[1]
    means = [np.asarray(x).mean(0) for n, x in recording.spikes(seen).items() if "block" in n]
    values = np.concatenate([x.reshape(-1) for x in means])
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


def test_histograms_want_a_spiking_run_and_its_twin(workdir, twin):
    module = script("activation_histograms")
    with pytest.raises(
        ValueError, match=r"must spike and the second use ReLU, got .*'relu'.*'lif'"
    ):
        module.measure(twin, workdir, EXAMPLES)


def test_the_energy_table_compares_schedules_twin_and_plain_transformer(workdir, twin, evaluated):
    module = script("energy")
    found = module.measure(workdir, twin, EXAMPLES)
    rows = [line.strip("| ").split(" | ") for line in module.markdown(found).splitlines()]
    assert [row[0] for row in rows[2:]] == [*found, "plain vision transformer"]
    learned = dict(zip(rows[0], rows[2], strict=True))
    np.testing.assert_allclose(float(rows[2][5]), evaluated.energy.microjoule, rtol=1e-3)
    assert learned["time steps"] == f"{evaluated.schedule.average:.2f} of 2"
    assert found["all time steps"].schedule.average == 2
    assert found["ReLU in place of spikes"].energy.accumulates == 0
