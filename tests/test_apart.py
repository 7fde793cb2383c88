"""Trainings in processes of their own, and the tables that studies of them write."""

import argparse
import types

import pytest

from snnvit_jax.common import markdown
from snnvit_jax.runs import apart


def started(monkeypatch, status=0, finished=False, says="went wrong\n"):
    """Returns a list that fills with the commands and folders of the processes started."""
    commands = []

    def run(command, cwd, stdout, stderr):
        commands.append((command, cwd))
        stdout.write(says)
        return types.SimpleNamespace(returncode=status)

    monkeypatch.setattr(apart.subprocess, "run", run)
    monkeypatch.setattr(apart.Workdir, "is_finished", lambda _: finished)
    return commands


def test_a_training_gets_its_folder_its_arguments_and_its_prefix(monkeypatch, tmp_path):
    commands = started(monkeypatch)
    apart.train(tmp_path / "run", ["--config=digits"], tmp_path, prefix=("taskset", "-c", "0"))
    [(command, cwd)] = commands
    assert command[:3] == ["taskset", "-c", "0"] and cwd == tmp_path
    assert command[4:] == ["-m", "snnvit_jax.main", f"--workdir={tmp_path}/run", "--config=digits"]


@pytest.mark.parametrize(("append", "lines"), [(True, 2), (False, 1)])
def test_what_a_training_prints_is_kept_beside_its_folder(monkeypatch, tmp_path, append, lines):
    started(monkeypatch)
    for _ in range(2):
        apart.train(tmp_path / "run-1.5", [], append=append)
    assert (tmp_path / "run-1.5.log").read_text() == "went wrong\n" * lines


def test_a_finished_training_is_not_started(monkeypatch, tmp_path):
    commands = started(monkeypatch, finished=True)
    apart.train(tmp_path / "run", [])
    assert not commands


def test_a_failed_training_is_told_with_the_end_of_its_output(monkeypatch, tmp_path):
    started(monkeypatch, status=3)
    with pytest.raises(RuntimeError, match=r"--config=digits ended with 3:\nwent wrong"):
        apart.train(tmp_path / "run", ["--config=digits"])


@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [(["out"], []), (["out", "--"], []), (["out", "--", "--a=1", "--", "b"], ["--a=1", "--", "b"])],
)
def test_what_follows_two_dashes_is_for_every_run(arguments, overrides):
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    options = apart.parse(parser, arguments)
    assert options.out == "out" and options.overrides == overrides


def test_a_table_is_markdown():
    wanted = "| a | b | c |\n| --- | --- | ---: |\n| x | 1 | 2.5 |\n"
    assert markdown.table(("a", "b", "c"), [("x", 1, 2.5)], left=2) == wanted
