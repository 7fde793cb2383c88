"""Predictions for files, by a run's folder or an exported file."""

import json
import shutil

import numpy as np
import pytest
from absl import flags
from PIL import Image

import snnvit_jax as snn
from snnvit_jax import main
from snnvit_jax.data import inputs, sources
from snnvit_jax.data.augment import recordings
from snnvit_jax.evaluation.ranking import top_classes
from snnvit_jax.runs import classes, commands, networks, predicting
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs.workdir import Workdir

NAMES = tuple("0123456789")


def config_of(**data):
    config = config_lib.default_config()
    config.model.update({"time_steps": 2, "embed_dim": 16, "num_heads": 2, "depth": 1})
    config.data.update({"image_size": 8, **data})
    return config


def fill(folder, config):
    """The folder of a run, but for its weights."""
    workdir = Workdir(folder)
    workdir.path.mkdir(parents=True)
    workdir.write_config(config, 0)
    classes.save(workdir, NAMES)
    return workdir.path


@pytest.fixture(scope="module")
def weights(lively):
    model = networks.model_of(config_of().model, 10, 8)
    return {channels: lively(model, channels) for channels in (1, 2)}


@pytest.fixture(scope="module")
def patched(weights):
    """Every folder holds these weights: those of images or of recordings, by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            networks,
            "load_variables",
            lambda path: weights[2 if "recordings" in str(path) else 1],
        )
        yield


@pytest.fixture(scope="module")
def run(patched, tmp_path_factory):
    config = config_of(mean=(0.3,), std=(0.4,))
    return fill(tmp_path_factory.mktemp("run") / "work", config)


@pytest.fixture(scope="module")
def network(run):
    return networks.open_network(run)


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.snn"
    network.save(path)
    return path


@pytest.fixture(scope="module")
def digits():
    return [example["image"] for example in sources.load("digits", "test").examples[:7]]


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    """Digits as image files, at two depths, one file damaged, and one that is no image."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "deeper").mkdir()
    for number, image in enumerate(digits):
        place = folder / "deeper" if number > 3 else folder
        Image.fromarray(image[..., 0]).save(place / f"{number}.png")
    whole = (folder / "1.png").read_bytes()
    (folder / "damaged.png").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("no image")
    return folder


def logits_of(network, digits):
    pixels = (np.stack(digits) / np.float32(255) - np.float32(0.3)) / np.float32(0.4)
    return np.asarray(network(pixels.astype(np.float32)))


def test_files_are_read_as_evaluation_reads_them_and_ranked_by_probability(network, folder, digits):
    found = list(predicting.predict(network, [folder], batch_size=3))
    paths = [f"{n}.png" for n in range(4)] + ["damaged.png"]
    paths += [f"deeper/{n}.png" for n in range(4, 7)]
    assert sorted(x.path for x in found) == sorted(str(folder / path) for path in paths)
    logits = logits_of(network, digits)
    good = {x.path[-5]: x for x in found if x.error is None}
    for number in range(7):
        expected = np.exp(logits[number]) / np.exp(logits[number]).sum()
        ranked = good[str(number)].classes
        assert [r.label for r in ranked] == np.argsort(-expected)[:5].tolist()
        np.testing.assert_allclose([r.probability for r in ranked], np.sort(expected)[:-6:-1], 1e-4)


def test_a_damaged_file_is_named_and_the_others_go_on(network, folder):
    found = list(predicting.predict(network, [folder / "damaged.png", folder / "0.png"]))
    assert [x.error is None for x in found] == [False, True]
    assert "damaged.png is damaged" in found[0].error
    only = list(predicting.predict(network, [folder / "damaged.png"]))
    assert len(only) == 1 and only[0].error


def test_an_exported_file_predicts_as_its_run(saved, network, folder):
    loaded = networks.open_network(saved)
    ours, theirs = (list(predicting.predict(n, [folder])) for n in (network, loaded))
    assert ours == theirs
    assert loaded.about["classes"] == list(NAMES)


def test_a_file_named_twice_counts_once_and_a_path_without_anything_is_named(network, folder):
    path = folder / "2.png"
    assert predicting.files_of(network, [path, path, folder / "0.png"]) == [
        str(path),
        str(folder / "0.png"),
    ]
    with pytest.raises(FileNotFoundError, match="absent.png"):
        predicting.files_of(network, [folder / "0.png", folder / "absent.png"])


def test_a_folder_without_images_is_named(network, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match="holds no files"):
        predicting.files_of(network, [tmp_path])


def test_recordings_are_predicted_and_damaged_ones_named(patched, tmp_path):
    run = fill(tmp_path / "recordings", config_of(name="digits_dvs"))
    network = networks.open_network(run)
    frames = sources.load("digits_dvs", "test", frames=sources.FrameSettings(2)).examples[0]
    files = tmp_path / "files"
    files.mkdir()
    np.savez(files / "good.npz", frames=frames["image"].transpose(0, 3, 1, 2))
    (files / "bad.npz").write_bytes(b"PK")
    bad, good = predicting.predict(network, [files])
    assert "bad.npz" in bad.error
    recording = np.float32(recordings.resize(frames["image"], (8, 8)))
    expected = np.argmax(np.asarray(network(recording[None])))
    assert good.classes[0].label == expected
    (image,) = predicting.predict(network, [_touched(files / "image.png")])
    assert "is no recording" in image.error


def _touched(path):
    path.write_bytes(b"")
    return path


def test_how_files_are_read_survives_json():
    for name, channels in (("digits", 1), ("digits_dvs", 2)):
        reading = inputs.input_of(config_of(name=name).data, 3, channels)
        again = inputs.from_description(json.loads(json.dumps(inputs.described(reading))))
        assert again == reading
    with pytest.raises(ValueError, match="does not say how files are read"):
        inputs.from_description({"kind": "images"})


def test_a_model_that_does_not_say_how_images_are_prepared_is_refused(tiny, tmp_path):
    snn.deploy(tiny.model, tiny.variables).save(tmp_path / "model.snn")
    with pytest.raises(ValueError, match="export its run again"):
        networks.open_network(tmp_path / "model.snn")
    with pytest.raises(FileNotFoundError, match="neither"):
        networks.open_network(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"no config\.json"):
        networks.open_network(tmp_path)


@pytest.mark.parametrize("form", ["table", "json"])
def test_what_is_printed_names_files_classes_and_steps(run, folder, network, capsys, form):
    assert commands.predict(run, [folder / "0.png"], form) == 0
    out = capsys.readouterr().out
    (prediction,) = predicting.predict(network, [folder / "0.png"])
    first = prediction.classes[0]
    if form == "json":
        content = json.loads(out)
        assert content["classes"][0] == first._asdict()
        assert content["path"] == str(folder / "0.png")
        assert content["average_time_steps"] == network.schedule.average
        assert len(content["classes"]) == 5
    else:
        row = out.splitlines()[1].split()
        assert row[:3] == [str(folder / "0.png"), first.name, f"{first.probability:.4f}"]
        assert "2.00 of 2" in out
    assert commands.predict(run, [folder], form) == 1
    out, err = capsys.readouterr()
    assert "damaged.png is damaged" in err
    assert len(out.splitlines()) == 8 + (form == "table")


def test_equal_classes_come_by_number_and_numbers_that_are_none_are_refused():
    assert [x.label for x in top_classes([0.0, 1.0, 1.0], "abc", 2)] == [1, 2]
    with pytest.raises(ValueError, match="not finite"):
        top_classes([np.nan, 0.0], "ab")
    with pytest.raises(ValueError, match="3 names"):
        top_classes([0.0, 1.0], "abc")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mode=predict", "x.png"), "needs --model=PATH"),
        (("--mode=predict", "--model=absent"), "needs files or folders"),
        (("--mode=predict", "--model=absent", "--format=snn", "x"), "'snn'"),
        (("--mode=predict", "--model=absent", "x.png"), "neither a run's folder"),
    ],
)
def test_the_command_line_says_what_is_missing(arguments, message, capsys):
    saved = flags.FLAGS.flag_values_dict()
    try:
        assert main.main(flags.FLAGS(["snnvit", *arguments])) == 2
    finally:
        for name in ("mode", "model", "format", "workdir"):
            flags.FLAGS[name].value = saved[name]
    assert message in capsys.readouterr().err


def test_a_workdir_is_never_the_trained_network_called_alike(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "digits_t4")
    opened = []
    monkeypatch.setattr(networks, "open_run", opened.append)
    monkeypatch.setattr(predicting, "predict", lambda *_: [])
    saved = flags.FLAGS.flag_values_dict()
    predict = ("snnvit", "--mode=predict", "--format=json", "x.png")
    try:
        assert main.main(flags.FLAGS([*predict, "--model=digits_t4"])) == 2  # may be a name
        assert "write './digits_t4' for the folder" in capsys.readouterr().err
        flags.FLAGS["model"].value = None
        assert main.main(flags.FLAGS([*predict, "--workdir=digits_t4"])) == 0
    finally:
        for name in ("mode", "model", "format", "workdir"):
            flags.FLAGS[name].value = saved[name]
    assert opened == [tmp_path / "digits_t4"]
