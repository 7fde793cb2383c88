"""How a run becomes a trained network in a folder."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util
from tiny_run import tiny_config

import snnvit_jax as snn
from snnvit_jax.checkpoints import Checkpoints, Measured, load_variables
from snnvit_jax.common import tensors
from snnvit_jax.pretrained import catalogue
from snnvit_jax.runs import classes, experiment, initial, publishing
from snnvit_jax.runs.workdir import Workdir

HISTORY = {"commit": "abc", "command": "train it", "hardware": "a computer", "note": ""}


def save_run(path, config, seed):
    """A finished run whose best checkpoint is of another step than its last; random weights."""
    config.seed = seed
    built = experiment.build(config, to_train=False)
    workdir = Workdir(path)
    workdir.path.mkdir()
    workdir.write_config(config, 0)
    workdir.write_summary({"steps": 16, "epochs": 2.0})
    workdir.metrics.write_text('{"step": 16, "seconds": 36.0}\n')
    classes.save(workdir, built.train_source.class_names)
    rng = np.random.default_rng(seed)

    def draw(leaf):
        return jnp.asarray(rng.uniform(0.1, 1.0, leaf.shape), leaf.dtype)

    with Checkpoints(workdir.checkpoints) as checkpoints:
        for step, accuracy in ((8, 0.7), (16, 0.6)):
            state = jax.tree.map(draw, built.state_shapes)
            measured = Measured(accuracy, "val")
            checkpoints.save(step, state.replace(step=jnp.int32(step)), measured)
    return workdir.path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = tiny_config()
    config.init_from = "/some/where/teacher"
    return save_run(tmp_path_factory.mktemp("run") / "work", config, seed=0)


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    """The same from another seed."""
    return save_run(tmp_path_factory.mktemp("another") / "work", tiny_config(), seed=1)


@pytest.fixture(scope="module")
def published(run, tmp_path_factory):
    target = tmp_path_factory.mktemp("published") / "mine"
    return target, publishing.publish(run, target, HISTORY, which="best")


def test_a_run_becomes_a_network_measured_as_it_is_loaded(run, published):
    target, about = published
    network = snn.load_pretrained(target)
    added = {key: network.about[key] for key in ("format", "sha256")}
    assert network.about == json.loads(json.dumps(about | added))
    stored = safetensors.numpy.load_file(target / "model.safetensors")
    assert {leaf.dtype.name for leaf in stored.values() if leaf.ndim > 1} == {"float16"}
    assert {leaf.dtype.name for leaf in stored.values() if leaf.ndim < 2} == {"float32"}
    own = traverse_util.flatten_dict(load_variables(run / "checkpoints", "best"), sep="/")
    for name, leaf in own.items():
        wanted = np.asarray(leaf).astype(stored[name].dtype)
        np.testing.assert_array_equal(stored[name], wanted)
    assert about["trained"]["hours"] == 0.01
    assert about["trained"]["config"]["init_from"] == "teacher"
    assert about["trained"]["checkpoint"] == (
        "the best checkpoint, step 8: chosen by its accuracy of 0.7000 on 'val'"
    )
    text = (target / "README.md").read_text()
    assert "best checkpoint, step 8" in text
    assert f"**{100 * about['measured']['accuracy']:.2f} %** on\n360 examples of `test`" in text


def test_another_network_is_not_lost_to_a_split_that_there_is_not(run, published):
    target, _ = published
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    with pytest.raises(ValueError, match="unknown split='nonsense'"):
        publishing.publish(run, target, HISTORY, split="nonsense")
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_another_network_is_not_lost_to_an_interrupted_measurement(run, published, monkeypatch):
    target, _ = published

    def interrupted(*_):
        raise KeyboardInterrupt

    before = {path.name: path.read_bytes() for path in target.iterdir()}
    monkeypatch.setattr(publishing, "_measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publishing.publish(run, target, HISTORY)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_what_cannot_be_published_is_named(run, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        publishing.publish(tmp_path, tmp_path / "x", HISTORY)
    unfinished = pathlib.Path(shutil.copytree(run, tmp_path / "unfinished"))
    (unfinished / "summary.json").unlink()
    with pytest.raises(ValueError, match="the training in .* has not ended"):
        publishing.publish(unfinished, tmp_path / "x", HISTORY)
    with pytest.raises(ValueError, match="unfinished holds a run, which would be lost"):
        publishing.publish(run, unfinished, HISTORY)
    monkeypatch.setattr(publishing, "MOST_BYTES", 10)
    monkeypatch.setattr(catalogue, "NETWORKS", tmp_path)
    with pytest.raises(ValueError, match="more than the 10 that a network of the package may"):
        publishing.publish(run, tmp_path / "x", HISTORY)


def test_it_is_the_written_network_that_is_measured_whatever_its_name(run, tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(publishing, "_measure", lambda network, *_: measured.append(network) or {})
    (tmp_path / "digits_t4").mkdir()
    for place, target in ((tmp_path, "digits_t4"), (tmp_path / "digits_t4", ".")):
        monkeypatch.chdir(place)
        about = publishing.publish(run, pathlib.Path(target), HISTORY)
        assert about["name"] == "digits_t4"
        assert measured.pop().about["trained"]["command"] == HISTORY["command"]


def test_a_run_may_hold_weights_beside_its_own(run, tmp_path):
    workdir = Workdir(shutil.copytree(run, tmp_path / "work"))
    (workdir.path / "model.safetensors").write_bytes(tensors.pack({"a": np.zeros(1)}))
    assert workdir.read_config() == Workdir(run).read_config()
    assert initial.network_at(workdir.path) is None


def test_the_mean_of_several_runs_is_a_network(run, another, tmp_path):
    about = publishing.publish(run, tmp_path / "mean", HISTORY, others=[another])
    stored = safetensors.numpy.load_file(tmp_path / "mean" / "model.safetensors")
    each = [
        traverse_util.flatten_dict(load_variables(path / "checkpoints"), sep="/")
        for path in (run, another)
    ]
    for name, leaf in stored.items():
        wanted = np.mean([np.asarray(one[name], np.float64) for one in each], 0)
        if not name.endswith("time_step_score"):
            np.testing.assert_allclose(leaf, wanted, rtol=1e-3)
    assert about["trained"]["hours"] == 0.02
    said = about["trained"]["mean_of"]
    assert said.startswith("the weights of 2 trainings: seed 0, ")
    assert "; seed 1, " in said
    assert f"| mean of | {said} |" in (tmp_path / "mean" / "README.md").read_text()


def test_no_mean_is_made_of_what_does_not_belong_together(run, another, tmp_path):
    def change(name, alter):
        folder = Workdir(shutil.copytree(another, tmp_path / name))
        config = folder.read_config()
        alter(config)
        folder.write_config(config, 0)
        return folder.path

    def neuron(config):
        config.model.neuron.tau = 3.0

    def split(config):
        config.data.train_split = "test"

    for other, reason in (
        (change("neuron", neuron), "its model.settings.neuron.tau is 3.0, not 2.0"),
        (change("split", split), "its data.train_split is 'test', not 'train'"),
        (run, "given twice"),
        (tmp_path, "holds no run"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=reason):
            publishing.publish(run, tmp_path / "x", HISTORY, others=[other])
    assert not (tmp_path / "x").exists()
