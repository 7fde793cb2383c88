"""Writing such that neither a crash nor a power cut leaves less than there was."""

import ast
import errno
import os
import pathlib
import re

import numpy as np
import pytest

import snnvit_jax as snn
from snnvit_jax.checkpoints import checksums
from snnvit_jax.common import files
from snnvit_jax.runs import classes, initial
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs.workdir import Workdir

PACKAGE = pathlib.Path(snn.__file__).parent


@pytest.fixture
def watched(monkeypatch):
    """What reaches the disk, in order: ("flush", path) and ("rename", target)."""
    events = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(descriptor):
        fsync(descriptor)
        events.append(("flush", os.readlink(f"/proc/self/fd/{descriptor}")))

    def spy_replace(source, target):
        replace(source, target)
        events.append(("rename", str(source), str(target)))

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    return events


def save_schedule(path):
    snn.TimeStepSchedule({"a/lif": (1, 0)}).save(path)


def save_deployed(path):
    from snnvit_jax.deployment import container

    container.write(path, {"about.json": b"{}"})


def save_sums(path):
    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    (folder / "array").write_bytes(b"123")
    checksums.write(folder)


# Every kind of file that the package writes whole: name -> function of (path, workdir).
WRITERS = {
    "text": lambda path: files.write_text(path, "text"),
    "schedule.json": save_schedule,
    "deployed.snn": save_deployed,
    "weights.safetensors": lambda path: initial.save(path, {"params": {"a": np.ones(2)}}),
    "7.sha256": save_sums,
    "summary.json": lambda path: Workdir(path.parent).write_summary({"accuracy": 1.0}),
    "config.json": lambda path: Workdir(path.parent).write_config(config_lib.default_config(), 0),
    "metrics.jsonl": lambda path: Workdir(path.parent).cut_metrics(3),
    "classes.json": lambda path: classes.save(Workdir(path.parent), ("a", "b")),
}


@pytest.mark.parametrize("name", WRITERS)
def test_content_comes_to_disk_before_its_name_and_the_name_before_the_end(tmp_path, watched, name):
    WRITERS[name](tmp_path / name)
    flush, rename, folder = watched
    assert flush == ("flush", rename[1])
    assert rename[::2] == ("rename", str(tmp_path / name))
    assert pathlib.Path(rename[1]).parent == tmp_path
    assert folder == ("flush", str(tmp_path))


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(
    tmp_path, monkeypatch, name, call
):
    WRITERS[name](tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        WRITERS[name](tmp_path / name)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_folder_that_is_not_there_is_named_as_the_user_does(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        files.write_text(tmp_path / "no" / "model.snn", "text")
    assert str(error.value) == f"[Errno 2] there is no such folder: '{tmp_path}/no'"


def test_a_configuration_that_is_replaced_is_never_gone(tmp_path, monkeypatch):
    workdir, config = Workdir(tmp_path), config_lib.default_config()
    workdir.write_config(config, 0)
    replace = os.replace

    def check_and_replace(source, target):
        assert workdir.read_config() is not None
        replace(source, target)

    monkeypatch.setattr(os, "replace", check_and_replace)
    config.epochs = 11
    workdir.write_config(config, 5)
    assert workdir.read_config().epochs == 11
    assert (tmp_path / "config-until-step-5.json").exists()


def test_a_link_stays_a_link_and_what_is_no_file_stays_what_it_is(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "file")
    files.write_text(tmp_path / "link", "ä")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "file").read_bytes() == "ä".encode()
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match="no regular file"):
            files.write_text(path, "text")


@pytest.mark.parametrize(("number", "raises"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_flush_folders_will_do(tmp_path, monkeypatch, number, raises):
    fsync = os.fsync

    def of_files_only(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", of_files_only)
    if raises:
        with pytest.raises(OSError, match="Input/output"):
            files.write_text(tmp_path / "file", "text")
    else:
        files.write_text(tmp_path / "file", "text")


def test_a_tree_is_flushed_with_all_in_it(tmp_path, watched):
    (tmp_path / "run" / "deep").mkdir(parents=True)
    for name in ("run/a", "run/deep/b"):
        (tmp_path / name).touch()
    (tmp_path / "run" / "dangling").symlink_to("nowhere")
    files.flush_tree(tmp_path / "run")
    expected = {tmp_path / name for name in ("run/a", "run/deep/b", "run/deep", "run", "")}
    assert {pathlib.Path(path) for _, path in watched} == expected


def test_a_new_folder_is_on_disk_with_all_above_it(tmp_path, watched):
    files.make_folder(tmp_path / "a" / "b")
    files.make_folder(tmp_path / "a" / "b")
    assert watched == [("flush", str(tmp_path)), ("flush", str(tmp_path / "a"))]


# What is no file that is written whole: files that grow by lines, the lock, an archive without a
# name, and the probe whether a folder can be written.
ALLOWED = {
    ("common/files.py", "os.replace"),
    ("common/files.py", "temporary.open"),
    ("data/sources/events/cache.py", "os.replace"),  # frames that can be made again
    ("runs/apart.py", "log.open"),  # of what another process prints
    ("runs/carry.py", "tarfile.open"),
    ("runs/logs.py", "workdir.metrics.open"),
    ("runs/workdir.py", "(self.path / '.lock').open"),
    ("runs/workdir.py", "probe.write_bytes"),
}
WRITING = {"write_text", "write_bytes", "save_file", "savez", "savetxt", "dump", "touch"}
WRITING |= {"replace", "rename", "renames", "open", "savefig"}
HARMLESS = {"files", "dataclasses"}  # the one place, and another word of the name


def writes(call):
    """Whether a call may write a file or give it another name."""
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr not in WRITING:
        return False
    if function.attr == "open":
        modes = [x.value for x in ast.walk(call) if isinstance(x, ast.Constant)]
        return any(isinstance(m, str) and re.fullmatch("[wax]b?[+]?", m) for m in modes)
    if function.attr == "replace" and len(call.args) != 1 and ast.unparse(function.value) != "os":
        return False  # of text
    if function.attr == "savefig" and ast.unparse(call.args[0]) == "buffer":
        return False  # in memory
    return ast.unparse(function.value) not in HARMLESS


def test_nothing_writes_but_through_the_one_place():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        place, tree = path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and writes(node))
        found |= {(place, ast.unparse(call.func)) for call in calls}
    assert found == ALLOWED
