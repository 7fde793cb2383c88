"""Trainings in processes of their own, and the tables that studies of them write."""

import argparse
import json
import subprocess
import sys
import types

import pytest

from snnvit_jax.common import markdown
from snnvit_jax.runs import apart


def started(monkeypatch, status=0, finished=False, says="went wrong\n"):
    """Returns a list that fills with the commands and folders of the processes started."""
    commands = []

    def run(command, cwd, env, stdout, stderr):
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


def test_a_training_imports_from_the_repository_and_works_elsewhere(monkeypatch, tmp_path):
    for name in ("root", "user", "before"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "whose.py").write_text(f"print({name!r})\n")
    (tmp_path / "user" / "own.py").write_text("import whose\n")
    monkeypatch.chdir(tmp_path / "user")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "before"))
    env = apart._importing_from(tmp_path / "root")
    command = [sys.executable, "-S", "-m", "own"]
    assert subprocess.run(command, env=env, capture_output=True, text=True).stdout == "root\n"


@pytest.mark.parametrize(("append", "lines"), [(True, 2), (False, 1)])
def test_what_a_training_prints_is_kept_beside_its_folder(monkeypatch, tmp_path, append, lines):
    started(monkeypatch)
    for _ in range(2):
        apart.train(tmp_path / "run-1.5", [], append=append)
    assert (tmp_path / "run-1.5.log").read_text() == "went wrong\n" * lines


def test_a_finished_training_is_not_started(monkeypatch, tmp_path):
    commands = started(monkeypatch)
    apart.train(tmp_path / "run", ["--a=1"])
    monkeypatch.setattr(apart.Workdir, "is_finished", lambda _: True)
    apart.train(tmp_path / "run", ["--a=1"])
    assert len(commands) == 1


def test_a_finished_training_of_other_arguments_is_refused(monkeypatch, tmp_path):
    commands = started(monkeypatch, finished=True)
    kept = tmp_path / "run-1.5.command.json"
    kept.write_text(json.dumps(["--config=a", "--b=2"]))
    both = r"of other arguments: --config=a --b=2; now they are --config=a --b=3; .*run-1.5.command"
    with pytest.raises(RuntimeError, match=both):
        apart.train(tmp_path / "run-1.5", ["--config=a", "--b=3"])
    apart.train(tmp_path / "run-1.5", ("--config=a", "--b=2"))
    kept.unlink()
    with pytest.warns(UserWarning, match=r"run-1.5 is finished .* its arguments were not kept"):
        apart.train(tmp_path / "run-1.5", ["--config=a", "--b=3"])
    assert not commands


def test_a_training_that_is_not_finished_may_get_other_arguments(monkeypatch, tmp_path):
    commands = started(monkeypatch)
    for arguments in (["--a=wrong"], ["--a=right"]):
        apart.train(tmp_path / "run", arguments)
    assert [command[-1] for command, _ in commands] == ["--a=wrong", "--a=right"]
    assert json.loads((tmp_path / "run.command.json").read_text()) == ["--a=right"]


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
