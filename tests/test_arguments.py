"""Command-line arguments of the experiments: a bad value is refused before any work."""

import argparse
import os
import pathlib
import re

import by_path
import pytest

from snnvit_jax.common import arguments

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (arguments.whole(1), "3", 3),
        (arguments.whole(1), "0", "'0' must be a whole number, at least 1"),
        (arguments.whole(1), "-3", "'-3' must be a whole number, at least 1"),
        (arguments.whole(0), "1.5", "'1.5' must be a whole number"),
        (arguments.whole(0, high=2), "3", "'3' must be a whole number, at least 0 and at most 2"),
        (arguments.number(above=0), "1e-3", 1e-3),
        (arguments.number(above=0), "0", "'0' must be a number, above 0"),
        (arguments.number(1), "nan", "'nan' must be a number, at least 1"),
        (arguments.number(1), "inf", "'inf' must be a number"),
        (arguments.number(1), "", "'' must be a number"),
    ],
)
def test_numbers(kind, text, value):
    if isinstance(value, str):
        with pytest.raises(argparse.ArgumentTypeError, match=value):
            kind(text)
    else:
        assert kind(text) == value


def test_an_output_folder_need_not_exist_but_can(tmp_path, monkeypatch):
    assert arguments.output_folder(str(tmp_path)) == tmp_path
    assert arguments.output_folder(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
    assert not (tmp_path / "a").exists()
    monkeypatch.chdir(tmp_path)
    assert arguments.output_folder("new") == pathlib.Path("new")
    (tmp_path / "file").touch()
    for wrong, message in (
        ("a" * 300, "too long"),
        ("~nobody_at_all/x", "no user"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            arguments.output_folder(wrong)
    for below in ("file", "file/new", str(tmp_path / "file" / "new" / "er")):
        with pytest.raises(argparse.ArgumentTypeError, match="file' is no folder: give another"):
            arguments.output_folder(below)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(argparse.ArgumentTypeError, match="may not be written to"):
        arguments.output_folder(str(tmp_path))


def test_an_output_file_is_in_a_folder_that_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert arguments.output_file("new.json") == pathlib.Path("new.json")
    for wrong, message in (
        (str(tmp_path), "is a folder: give the path of a file"),
        ("missing/new.json", "'missing/new.json': there is no folder 'missing'"),
        ("~nobody_at_all/x", "no user"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            arguments.output_file(wrong)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(argparse.ArgumentTypeError, match="'new.json' may not be written to"):
        arguments.output_file("new.json")


TWICE = ("pretrained:digits_t4", "pretrained:digits_t4")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("energy/run.py", "pretrained:digits_t4", "FILE"), "argument out: .* is no folder"),
        (("sensitivity/run.py", "pretrained:digits_t4", "FILE"), "argument out: .* is no folder"),
        (("early_exit/measure.py", "pretrained:digits_t4", "--out=FILE"), "argument --out: "),
        (("early_exit/measure.py", *TWICE, "--out=OUT"), "equal names, digits_t4, digits_t4"),
        (("deploy/measure.py", TWICE[0], "--out=OUT", "--batch_size", "-3"), "--batch_size: '-3'"),
        (("cifar10/frontier.py", "OUT", "--fixed", "0"), "argument --fixed: '0' must be a whole"),
        (("cifar10/frontier.py", "OUT", "--targets=5"), "5.0 must be at most --time-steps=4"),
        (("cifar10/search.py", "pretrained:cifar10_t4", "OUT", "--energy=0"), "argument --energy"),
        (
            ("energy/run.py", "pretrained:digits_t4", "OUT", "--twin=pretrained:digits_learned"),
            "--twin must have model.neuron.kind=relu, not 'lif'",
        ),
        (("benchmarks/roofline.py", "OUT/new.json"), "there is no folder"),
        (("benchmarks/peers.py", "--peer-python=x", "--repetitions=0"), "--repetitions: '0'"),
        (("cifar10/draw.py", "METRICS", "OUT/figure.png"), "there is no folder"),
        (("families/flops.py",), "the following arguments are required: out"),
        (("families/flops.py", "FILE"), "argument out: .* is no folder"),
        (("sharding/memory.py", "FILE"), "argument out: .* is no folder"),
        (("accelerators/step.py", "h100", "spikformer_4_384", "0", "8", "X"), "image_size: '0'"),
        (("accelerators/count.py", "OUT/x"), "there is no folder"),
    ],
)
def test_experiments_refuse_bad_arguments_at_once(words, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    places = {"FILE": str(tmp_path / "file"), "OUT": str(tmp_path / "out")}
    for word, place in places.items():
        words = [one.replace(word, place) for one in words]
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])  # some change it: as it was after them
    monkeypatch.syspath_prepend((ROOT / "experiments" / words[0]).parent)  # for its neighbours
    script = by_path.module(ROOT / "experiments" / words[0])
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert re.search(f"error: .*{message}", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
