"""Trained networks: those of the package, and folders like them."""

import configparser
import functools
import hashlib
import json
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import snnvit_jax as snn
from snnvit_jax.common import tensors
from snnvit_jax.common.pixels import Normalization
from snnvit_jax.data import sources
from snnvit_jax.pretrained import card, catalogue, folder
from snnvit_jax.runs import (
    initial,
    networks,
    opening,
    publishing,
    start,
)
from snnvit_jax.runs.workdir import Workdir

ROOT = pathlib.Path(__file__).parents[1]
NAMES = snn.list_pretrained()
FORMS = ("spikformer_4_384", "spikformer_2_256_dvs")  # the same names and shapes of weights


@pytest.fixture(scope="module")
def learned():
    return snn.load_pretrained("digits_learned")


@pytest.fixture
def copy(tmp_path):
    return pathlib.Path(shutil.copytree(catalogue.NETWORKS / "digits_relu", tmp_path / "copy"))


def described(model, reading):
    """What config.json needs to say of a small Spikformer."""
    sizes = {"embed_dim": 16, "num_heads": 2, "depth": 1}
    form = next(n for n in FORMS if snn.create_model(n, 10, 16, 4, **sizes).config == model.config)
    shape = {"num_classes": 10, "image_size": [16, 16], "time_steps": 4}
    model = {"name": form, **shape, "settings": sizes}
    return {"name": "x", "model": model, "classes": list("0123456789"), "reading": reading}


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


@pytest.mark.parametrize("name", ["digits_learned", "cifar10_learned"])
def test_images_are_normalised_bit_for_bit_as_in_training(name):
    network = snn.load_pretrained(name)
    levels = np.arange(256, dtype=np.uint8)
    images = np.resize(levels[:, None], (4, *network.image_shape[:2], 1))
    images = np.broadcast_to(images, (4, *network.image_shape))
    trained_on = Normalization(*network.normalisation)(images)
    np.testing.assert_array_equal(network.normalise(images), trained_on)
    fractions = images / np.float32(255)
    np.testing.assert_array_equal(network.normalise(fractions), trained_on)


def test_images_of_another_range_or_type_are_refused(learned):
    digits = np.zeros((1, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(learned.normalise(digits), learned.normalise(digits / 255.0))
    assert learned.normalise(digits)[0, 0, 0, 0] == pytest.approx(-0.3 / 0.4)
    with pytest.raises(ValueError, match="between 0 and 1, these: 0 to 16"):
        learned.normalise(np.linspace(0, 16, 64).reshape(1, 8, 8, 1))
    with pytest.raises(ValueError, match="type int64 must be uint8"):
        learned.normalise(digits.astype(np.int64))
    for wrong in (digits[0], digits[None], digits[:0], np.zeros((1, 8, 8, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"must be \[B, 8, 8, 1\] with B >= 1, got"):
            learned(wrong)
    half = jnp.full((1, 8, 8, 1), 0.5, jnp.bfloat16)
    np.testing.assert_array_equal(learned(half), learned(np.asarray(half, np.float32)))


def test_where_jax_traces_it_says_what_to_call(learned):
    images = np.zeros((1, 8, 8, 1), np.float32)
    for change in (jax.jit, jax.vmap, lambda f: jax.grad(lambda x: f(x).sum())):
        with pytest.raises(TypeError, match="call network.model.apply"):
            change(lambda x: learned(x))(images)
    traced = jax.jit(learned.model.apply)(learned.variables, learned.normalise(images))
    np.testing.assert_allclose(traced, learned(images), rtol=1e-5)


def test_a_network_is_its_model_and_its_variables(learned):
    model, variables = learned
    assert model is learned.model
    assert variables is learned.variables


def test_a_network_is_shown_in_one_line(learned):
    assert repr(learned).startswith("<Pretrained digits_learned: Spikformer with ")
    assert repr(learned).endswith(", reads 8 x 8 x 1>")


def test_a_network_of_recordings_takes_counts(tmp_path):
    model = snn.create_model("spikformer_2_256_dvs", 10, 16, 4, embed_dim=16, num_heads=2, depth=1)
    frames = np.random.default_rng(0).integers(0, 4, (2, 4, 16, 16, 2)).astype(np.uint8)
    own = model.init(jax.random.key(0), frames.astype(np.float32))
    frames_read = {"time_steps": 4, "sensor": [16, 16]}
    reading = {"kind": "recordings", "preprocess": {"size": [16, 16], "sum_channel": False}}
    about = described(model, reading | {"frames": frames_read})
    folder.write(tmp_path / "x", about, own)
    network = snn.load_pretrained(tmp_path / "x")
    assert network.image_shape == (4, 16, 16, 2)
    stored = network.variables
    expected = model.apply(stored, frames.astype(np.float32))
    np.testing.assert_allclose(network(frames), expected, rtol=1e-5, atol=1e-6)
    assert networks.open_network(tmp_path / "x")(frames.astype(np.float32)).shape == (2, 10)
    for wrong in (-1, np.inf, np.nan):
        with pytest.raises(ValueError, match=f"counts of events, at least 0; one is {wrong}"):
            network(np.where(frames == frames.max(), wrong, frames.astype(float)))
    change(tmp_path / "x", reading=reading | {"frames": frames_read | {"time_steps": 5}})
    with pytest.raises(ValueError, match="frames.time_steps=5, model.time_steps=4 must be equal"):
        snn.load_pretrained(tmp_path / "x")


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
        ("num_classes", 7, "config.json': classes holds 10 names, model.num_classes is 7"),
        ("name", "spikformer_x", "describes no model: .*unknown model name='spikformer_x'"),
        ("settings", None, "model.settings=None must be an object"),
        ("settings", {"depht": 2}, "describes no model: .*depht"),
    ):
        change(copy, format=1, model=about["model"] | {key: value})
        with pytest.raises(ValueError, match=message):
            snn.load_pretrained(copy)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("reading.preprocess.std", [0.0], r"std=\[0.0\] must be .* above 0"),
        ("reading.preprocess.mean", [float("nan")], r"mean=\[nan\] must be .* finite"),
        ("reading.preprocess.mean", [0.1, 0.2], "mean holds 2 numbers for 1 channels"),
        ("reading.preprocess.size", [8, -8], r"size=\[8, -8\] must be"),
        ("reading.preprocess.crop_fraction", 3, "crop_fraction=3 must be None or"),
        ("reading.kind", "sounds", "kind='sounds' must be one of images, recordings"),
        ("reading.kind", {}, "kind={} must be one of"),
        ("reading.channels", "3", "channels='3' must be 1 or 3"),
        ("reading.channels", 2, "channels=2 must be 1 or 3"),
        (
            "reading.preprocess.size",
            [8, 16],
            r"reading.preprocess.size=\[8, 16\], model.image_size=\[8, 8\] must be equal",
        ),
        ("reading", {}, "lacks reading.kind, which must be one of"),
        ("reading", None, "lacks reading.kind"),
        ("classes", "0123456789", "classes='0123456789' must be a tuple"),
        ("classes", [*"012345678", 9], "classes=.* must be"),
        ("classes", [*"01234567"], "classes holds 8 names, model.num_classes is 10"),
        ("model", [], "lacks model.name"),
        ("model.time_steps", True, "time_steps=True must be a whole number"),
        ("model.num_classes", 10.0, "num_classes=10.0 must be a whole number"),
        ("model.time_steps", 10**30, "time_steps=10* must be a whole number"),
        ("model.settings.embed_dim", 10**30, "settings.embed_dim=10* must be .* at most"),
        ("model.settings.depth", 10**8, "settings.depth=10* must be .* at most"),
        ("model.settings.pool", [[{}]], r"settings.pool=\[\[{}\]\] must be a text, "),
        ("model.settings.dtype", "float23", "settings.dtype='float23' must be the name of a float"),
        ("model.settings.neuron", "lif", "settings.neuron='lif' must be an object"),
        ("model.settings.neuron", {"kind": []}, r"neuron.kind=\[\] must be None or a text"),
        (
            "model.settings.neuron",
            {"kind": "lif", "tau": "2"},
            "neuron.tau='2' must be None or a n",
        ),
        ("model.settings.neuron", {"own": {}}, "settings.neuron.own={} must be a text, "),
    ],
)
def test_an_entry_that_does_not_fit_is_named_before_any_weights_are_read(
    copy, entry, value, message
):
    about = json.loads((copy / "config.json").read_text())
    *path, last = entry.split(".")
    functools.reduce(dict.__getitem__, path, about)[last] = value
    (copy / "config.json").write_text(json.dumps(about))
    (copy / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=f"config.json'.* ?{message}"):
        snn.load_pretrained(copy)


def rewrite(copy, change_tensors):
    """Writes the weights of a network anew, with their SHA-256."""
    tensors_there = safetensors.numpy.load_file(copy / "model.safetensors")
    content = tensors.pack(change_tensors(tensors_there))
    (copy / "model.safetensors").write_bytes(content)
    change(copy, sha256=hashlib.sha256(content).hexdigest())


def test_weights_may_be_bfloat16_but_no_whole_numbers(copy):
    own = snn.load_pretrained("digits_relu").variables
    rewrite(copy, lambda given: {n: x.astype(jnp.bfloat16) for n, x in given.items()})
    found = snn.load_pretrained(copy).variables
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=4e-3), found, own)
    rewrite(copy, lambda given: given | {"params/head/bias": np.zeros(10, np.int32)})
    with pytest.raises(ValueError, match="model.safetensors' .*'params/head/bias' holds int32 num"):
        snn.load_pretrained(copy)
    content = b"no tensors"
    (copy / "model.safetensors").write_bytes(content)
    change(copy, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ValueError, match="model.safetensors' is not a safetensors file"):
        snn.load_pretrained(copy)


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_says_which(copy, lost):
    (copy / lost).unlink()
    zeros = snn.load_pretrained("digits_relu").variables
    for load in (
        snn.load_pretrained,
        networks.open_network,
        lambda path: initial.load(str(path), snn.load_pretrained("digits_relu").model, zeros),
    ):
        with pytest.raises(FileNotFoundError, match=f"copy/{lost}'.* is missing: copy"):
            load(copy)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{", "\0"])
def test_a_config_that_is_none_is_refused(copy, text):
    (copy / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json' (is damaged|does not describe)"):
        snn.load_pretrained(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="config.json is not a run's configuration"):
        Workdir(copy).read_config()


@pytest.mark.parametrize("trained", [None, 3, {}, {"config": None}, {"config": {"model": 1}}])
def test_a_network_that_does_not_say_how_it_was_trained_can_be_used_but_not_opened(copy, trained):
    change(copy, trained=trained)
    assert "config.json does not say: " in snn.load_pretrained(copy).card
    with pytest.raises(ValueError, match="config.json(: trained.config| does not say how)"):
        opening.settings_of(copy)


@pytest.mark.parametrize(
    "others",
    [
        {"README.md": "# Mine\n"},
        {"config.json": '{"model_type": "vit"}', "model.safetensors": "of others"},
        {"model.safetensors": "of others"},
        {"config.json": "[]"},
    ],
)
def test_files_of_others_are_not_replaced(tmp_path, learned, others):
    for name, text in others.items():
        (tmp_path / name).write_text(text)
    message = rf"holds other files \({', '.join(others)}\), which would be lost: choose"
    for refuse in (folder.check_free, lambda x: folder.write(x, learned.about, learned.variables)):
        with pytest.raises(ValueError, match=message):
            refuse(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == others


def test_an_earlier_network_is_replaced_and_other_files_beside_it_are_kept(copy, learned):
    (copy / "notes.txt").write_text("mine")
    folder.write(copy, learned.about, learned.variables)
    assert snn.load_pretrained(copy).about["name"] == "digits_learned"
    assert (copy / "notes.txt").read_text() == "mine"


def test_what_could_not_be_loaded_is_not_written(tmp_path, learned):
    with pytest.raises(ValueError, match="config.json' lacks reading.kind"):
        folder.write(tmp_path / "x", learned.about | {"reading": {}}, learned.variables)
    assert not (tmp_path / "x").exists()


def test_weights_that_do_not_fit_are_named_with_their_path(copy, monkeypatch):
    monkeypatch.chdir(copy.parent)
    copy.rename("model")  # a word of the message
    other = snn.create_model("spikformer_4_384", 10, 8, 4, embed_dim=16, num_heads=2, depth=1)
    zeros = jax.eval_shape(other.init, jax.random.key(0), np.zeros((1, 8, 8, 1)))
    with pytest.raises(ValueError, match="init_from='model': .* and [0-9]+ more; set config.model"):
        initial.load("model", other, zeros)


def test_a_network_is_no_run(copy):
    with pytest.raises(ValueError, match=f"holds a trained network and no run: .*init_from={copy}"):
        Workdir(copy).read_config()


def test_a_network_of_another_form_is_refused_though_its_shapes_fit(tmp_path):
    sizes = {"embed_dim": 16, "num_heads": 2, "depth": 1}
    model, other = (snn.create_model(name, 10, 16, 4, **sizes) for name in FORMS)
    own = model.init(jax.random.key(0), np.zeros((1, 16, 16, 3)))
    reading = {
        **{"kind": "images", "channels": 3},
        "preprocess": {"size": [16, 16], "mean": [0.5], "std": [0.5], "crop_fraction": None},
    }
    about = described(model, reading)
    folder.write(tmp_path / "x", about, own)
    initial.load(str(tmp_path / "x"), model, own)
    with pytest.raises(ValueError, match="/x' is a network of 'spikformer_4_384' with form="):
        initial.load(str(tmp_path / "x"), other, own)


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
    text = card.render({"name": "x", "trained": {"epochs": 2.0, "hours": "two"}})
    assert text.startswith("# x\n")
    assert "config.json does not say: description, " in text
    assert "trained.hours" in text
    assert "trained.epochs" not in text


def test_a_weight_that_float16_cannot_hold_is_named(tmp_path):
    with pytest.raises(ValueError, match="float16.* cannot be used: 'params/a/kernel' holds 1 val"):
        folder.write(tmp_path / "x", {}, {"params": {"a": {"kernel": np.full((1, 1), 7e4)}}})
    assert not (tmp_path / "x").exists()
