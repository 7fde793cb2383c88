"""Folders that get a name, or are given one that means nothing."""

import concurrent.futures
import shutil

import pytest

import snnvit_jax as snn
from snnvit_jax.data import sources
from snnvit_jax.runs import carry, command_line, folders, networks, start, workdir
from snnvit_jax.runs.workdir import Workdir


def test_runs_that_are_started_together_get_folders_of_their_own(tmp_path, monkeypatch):
    def name_of(number):
        return f"now-{number}"

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: workdir.claim(tmp_path / "runs", name_of), range(40)))
    assert sorted(found) == list(range(1, 41))
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        with pytest.raises(
            OSError, match="cannot create a folder for the run in .*; give a --work"
        ):
            workdir.claim(tmp_path / name / "runs", name_of)


def test_a_new_folder_is_new_and_gone_again_if_nothing_came_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with folders.new("tiny") as one, folders.new("tiny", alone=True) as two:
        assert one.is_dir()
        assert two.is_dir()
        assert one != two
        (two / "config.json").touch()
    assert [path.name for path in (tmp_path / "runs" / "tiny").iterdir()] == [two.name]
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(ZeroDivisionError), folders.new("tiny"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "read",
    [
        Workdir,
        start.classes_of,
        snn.load_pretrained,
        networks.open_network,
        lambda path: sources.load("image_folder", "train", path),
        lambda path: sources.load("archive", "train", path),
        lambda path: sources.load("events", "train", path),
        lambda path: sources.load("cifar10", "train", path),
        lambda path: command_line.located(f"--config={path}"),
        lambda path: carry.unpack(path, "there"),
    ],
)
def test_the_home_of_nobody_is_named(read):
    with pytest.raises(ValueError, match="'~no_such_user/x.*': this machine knows no user 'no_suc"):
        read("~no_such_user/x")
