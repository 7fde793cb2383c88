"""Trained networks: those of the package, folders like them, and how such a folder is made."""

import configparser
import json
import pathlib
import re
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
from snnvit_jax.data import sources
from snnvit_jax.pretrained import card, catalogue, folder
from snnvit_jax.runs import classes, experiment, initial, networks, publishing, start
from snnvit_jax.runs.workdir import Workdir

ROOT = pathlib.Path(__file__).parents[1]
NAMES = snn.list_pretrained()
HISTORY = {"commit": "abc", "command": "train it", "hardware": "a computer", "note": ""}


@pytest.fixture(scope="module")
def learned():
    return snn.load_pretrained("digits_learned")


@pytest.fixture
def copy(tmp_path):
    return pathlib.Path(shutil.copytree(catalogue.NETWORKS / "digits_relu", tmp_path / "copy"))


def change(path, **values):
    about = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(about | values))
    return about


# Those of the package.


@pytest.mark.parametrize("name", NAMES)
def test_every_network_of_the_package_is_small_whole_and_described(name):
    path = catalogue.NETWORKS / name
    network = snn.load_pretrained(name)
    assert (path / "model.safetensors").stat().st_size <= publishing.MOST_BYTES
    assert (path / "README.md").read_text() == network.card
    assert network.about["name"] == name
    trained, measured = network.about["trained"], network.about["measured"]
    assert all(trained[key] for key in ("commit", "command", "hardware", "hours", "versions"))
    assert measured["accuracy"] == measured["correct"] / measured["examples"] > 0.5
    assert network.schedule.average == measured["average_time_steps"]
    masks = {name: mask.tolist() for name, mask in network.schedule.masks.items()}
    assert masks == measured["masks"]
    assert not re.search("/(work|home|tmp|root)/", (path / "config.json").read_text())


def test_the_digits_are_there_and_everything_is_packaged():
    assert {"digits_learned", "digits_relu", "digits_t4"} <= set(NAMES)
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    pattern = settings["options.package_data"]["snnvit_jax.weights"]
    package = catalogue.NETWORKS.parent
    found = {path for path in catalogue.NETWORKS.rglob("*") if path.is_file()}
    assert set(package.glob(pattern)) == found


def test_the_digits_network_reaches_the_last_digit_of_its_card(learned):
    examples = sources.load("digits", "test").examples
    images = np.stack([example["image"] for example in examples])
    labels = np.array([example["label"] for example in examples])
    logits = np.asarray(learned(images), np.float64)
    measured = learned.about["measured"]
    assert (logits.argmax(-1) == labels).sum() == measured["correct"]
    assert (logits.argmax(-1) == labels).mean() == measured["accuracy"]
    lost = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(labels)), labels]
    assert lost.mean() == pytest.approx(measured["loss"], rel=1e-3)


def test_the_example_of_the_readme_runs(capsys):
    blocks = re.findall("```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (block,) = (block for block in blocks if "load_pretrained" in block)
    exec(block, {"snn": snn})
    printed = capsys.readouterr().out
    assert printed.startswith("0\n")
    assert "2.0" in printed


def test_images_of_another_range_or_type_are_refused(learned):
    digits = np.zeros((1, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(learned.normalise(digits), learned.normalise(digits / 255.0))
    assert learned.normalise(digits)[0, 0, 0, 0] == pytest.approx(-0.3 / 0.4)
    with pytest.raises(ValueError, match="between 0 and 1, these: 0 to 16"):
        learned.normalise(np.linspace(0, 16, 64).reshape(1, 8, 8, 1))
    with pytest.raises(ValueError, match="type int64 must be uint8"):
        learned.normalise(digits.astype(np.int64))


# By name and by path.


def test_a_bad_name_gets_the_list_and_the_nearest():
    message = r"'digits_lerned' \(did you mean 'digits_learned'\?\).*digits_learned, .*digits_t4"
    for load in (snn.load_pretrained, lambda n: initial.check_source(f"pretrained:{n}")):
        with pytest.raises(ValueError, match=message):
            load("digits_lerned")
    with pytest.raises(FileNotFoundError, match="come.* with the package: .*digits_learned"):
        networks.open_network("/nowhere/x")
    with pytest.raises(ValueError, match="no pretrained network is called ''"):
        snn.load_pretrained("")


def test_damage_is_told(copy):
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=f"'{weights}' is damaged: its SHA-256 is"):
        snn.load_pretrained(copy)
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match=f"'{weights}' is only a pointer .* git lfs pull"):
        snn.load_pretrained(copy)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        snn.load_pretrained(copy)
    (copy / "config.json").write_text('{"format": 1, "hidden_size": 64}')
    with pytest.raises(ValueError, match="does not describe a network .*missing=.'sha256', "):
        snn.load_pretrained(copy)
    (copy / "config.json").write_text('{"format"')
    with pytest.raises(ValueError, match="config.json' is damaged, it is no JSON"):
        snn.load_pretrained(copy)


def test_a_description_of_another_model_or_format_is_refused(copy):
    about = change(copy, format=2)
    with pytest.raises(ValueError, match="has format 2, this version reads 1"):
        snn.load_pretrained(copy)
    for key, value, message in (
        ("num_classes", 7, "holds another model .* 'params/head/bias' is .10,., not .7,."),
        ("name", "spikformer_x", "describes no model: .*unknown model name='spikformer_x'"),
        ("settings", None, "describes no model"),
    ):
        change(copy, format=1, model=about["model"] | {key: value})
        with pytest.raises(ValueError, match=message):
            snn.load_pretrained(copy)


def test_a_training_may_start_from_a_network_by_name_or_path(copy):
    network = snn.load_pretrained("digits_relu")
    zeros = jax.tree.map(jnp.zeros_like, network.variables)
    for path in ("pretrained:digits_relu", copy):
        found, origin = start.load(path, network.model, zeros, network.classes)
        jax.tree.map(np.testing.assert_array_equal, found, network.variables)
        assert origin["head"] == "kept"
        assert origin["sha256"] == network.about["sha256"]
    others = start.load("pretrained:digits_relu", network.model, zeros, "abcdefghij")
    assert not others[0]["params"]["head"]["kernel"].any()
    assert "starting from pretrained:digits_relu; the head starts anew" in start.describe(others[1])


@pytest.mark.parametrize("place", ["digits_relu", "pretrained:digits_relu"])
def test_a_network_can_predict_files_by_its_name(place):
    network = networks.open_network(place)
    assert networks.class_names_of(network) == list("0123456789")
    assert networks.input_of(network).preprocess.mean == (0.3,)


def test_a_card_without_history_says_so():
    assert "Nothing is said" in card.render({"name": "x"})


# From a run.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run: its best checkpoint is of another step than its last."""
    config = tiny_config()
    config.init_from = "/some/where/teacher"
    built = experiment.build(config, to_train=False)
    workdir = Workdir(tmp_path_factory.mktemp("run") / "work")
    workdir.path.mkdir()
    workdir.write_config(config, 0)
    workdir.write_summary({"steps": 16, "epochs": 2.0})
    workdir.metrics.write_text('{"step": 16, "seconds": 36.0}\n')
    classes.save(workdir, built.train_source.class_names)
    rng = np.random.default_rng(0)

    def draw(leaf):
        return jnp.asarray(rng.uniform(0.1, 1.0, leaf.shape), leaf.dtype)

    with Checkpoints(workdir.checkpoints) as checkpoints:
        for step, accuracy in ((8, 0.7), (16, 0.6)):
            state = jax.tree.map(draw, built.state_shapes)
            measured = Measured(accuracy, "val")
            checkpoints.save(step, state.replace(step=jnp.int32(step)), measured)
    return workdir.path


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


def test_a_weight_that_float16_cannot_hold_is_named(tmp_path):
    with pytest.raises(ValueError, match="float16.* cannot be used: 'params/a/kernel' holds 1 val"):
        folder.write(tmp_path / "x", {}, {"params": {"a": {"kernel": np.full((1, 1), 7e4)}}})
    assert not (tmp_path / "x").exists()
