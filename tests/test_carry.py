import json
import os

import pytest

from snnvit_jax.checkpoints import checksums
from snnvit_jax.runs import carry


@pytest.fixture
def workdir(tmp_path):
    """A run's folder as training leaves it, with two checkpoints."""
    folder = tmp_path / "work"
    for step in ("8", "16"):
        state = folder / "checkpoints" / step / "state"
        state.mkdir(parents=True)
        (state / "array").write_bytes(os.urandom(3000))
        (state / "empty").touch()
        checksums.write(state.parent)
    (folder / "config.json").write_text('{"seed": 0}')
    (folder / "tensorboard").mkdir()
    (folder / "damaged-checkpoint-4").mkdir()
    (folder / ".lock").touch()
    return folder


def content(folder):
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("part_bytes", [500, 4096, 10**9])
def test_a_run_is_the_same_after_it_was_carried(workdir, tmp_path, part_bytes):
    paths = carry.pack(workdir, tmp_path / "parts", part_bytes)
    assert sorted(paths) == sorted((tmp_path / "parts").iterdir())
    sizes = [path.stat().st_size for path in paths]
    assert max(sizes) <= part_bytes
    assert set(sizes[:-1]) <= {part_bytes}
    assert carry.unpack(tmp_path / "parts", tmp_path / "there" / "work") == 16
    carried, own = content(tmp_path / "there" / "work"), content(workdir)
    left = {path for path in own if path not in carried}
    assert {path.parts[:2] for path in left} == {
        *((".lock",), ("damaged-checkpoint-4",)),
        *(("checkpoints", "8"), ("checkpoints", "8.sha256")),
    }
    assert carried == {path: own[path] for path in carried}


@pytest.mark.parametrize("newest_only", [False, True])
def test_the_best_checkpoint_is_carried_too(workdir, tmp_path, newest_only):
    for step, accuracy in (("8", 0.9), ("16", 0.8)):
        folder = workdir / "checkpoints" / step
        (folder / "metrics").mkdir()
        (folder / "metrics" / "metrics").write_text(json.dumps({"accuracy": accuracy}))
        checksums.write(folder)
    carry.pack(workdir, tmp_path / "parts", 10**6, newest_only)
    assert carry.unpack(tmp_path / "parts", tmp_path / "there") == 16
    assert (tmp_path / "there" / "checkpoints" / "8").exists() != newest_only


def test_parts_travel_in_any_company(workdir, tmp_path):
    carry.pack(workdir, tmp_path / "parts", 2000)
    (tmp_path / "parts" / "notes.txt").touch()
    assert carry.unpack(tmp_path / "parts", tmp_path / "there") == 16


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda paths: paths[1].unlink(), r"missing=\[2\]"),
        (lambda paths: paths[-1].unlink(), r"missing=\[\d+\]"),
        (lambda paths: paths[2].write_bytes(b"?" * 1000), "SHA-256 differs"),
        (lambda paths: os.truncate(paths[0], 10), "SHA-256 differs"),
        (lambda paths: paths[0].with_name(f"run.part-1-of-2.{'0' * 64}").touch(), "of 2"),
        (
            lambda paths: paths[0].with_name(f"run.part-1-of-{len(paths)}.{'0' * 64}").touch(),
            r"double=\[1\]",
        ),
        (lambda paths: [path.unlink() for path in paths], "of 0"),
    ],
)
def test_parts_that_are_not_complete_are_refused_and_leave_nothing(
    workdir, tmp_path, damage, message
):
    damage(carry.pack(workdir, tmp_path / "parts", 1000))
    with pytest.raises(ValueError, match=message):
        carry.unpack(tmp_path / "parts", tmp_path / "there" / "work")
    assert not list((tmp_path / "there").glob("*"))


def test_parts_of_different_runs_are_not_mixed(workdir, tmp_path):
    first = carry.pack(workdir, tmp_path / "first", 1000)
    array = workdir / "checkpoints" / "16" / "state" / "array"
    array.write_bytes(os.urandom(3000))
    checksums.write(array.parents[1])
    second = carry.pack(workdir, tmp_path / "second", 1000)
    assert len(first) == len(second) > 1
    changed = [i for i, path in enumerate(first) if path.name != second[i].name]
    changed = changed[len(changed) // 2]  # in the first ones it may be only times of writing
    first[changed].unlink()
    second[changed].rename(tmp_path / "first" / second[changed].name)
    with pytest.raises(ValueError, match="is not what was written"):
        carry.unpack(tmp_path / "first", tmp_path / "there")
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("command", ["pack", "unpack"])
def test_a_folder_that_holds_something_is_not_written_to(workdir, tmp_path, command, capsys):
    carry.pack(workdir, tmp_path / "parts", 1000)
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").touch()
    source = {"pack": workdir, "unpack": tmp_path / "parts"}[command]
    assert carry.main([command, str(source), str(full)]) == 2
    assert f"the folder {full} is not empty" in capsys.readouterr().err
    assert [path.name for path in full.iterdir()] == ["thesis.tex"]


def test_what_cannot_be_packed_is_named(workdir, tmp_path, capsys):
    assert carry.main(["pack", str(tmp_path / "none"), str(tmp_path / "parts")]) == 2
    assert f"{tmp_path}/none holds no checkpoint" in capsys.readouterr().err
    with pytest.raises(ValueError, match="part_bytes=0 must be at least 1"):
        carry.pack(workdir, tmp_path / "parts", 0)
    (workdir / "checkpoints" / "16" / "state" / "array").write_bytes(b"?")
    with pytest.raises(ValueError, match="SHA-256 differs"):
        carry.pack(workdir, tmp_path / "parts", 1000)
    (workdir / "checkpoints" / "16.sha256").unlink()
    assert carry.main(["pack", str(workdir), str(tmp_path / "parts")]) == 2
    assert "has no checksums" in capsys.readouterr().err
    assert not list((tmp_path / "parts").glob("*"))
    assert carry.main(["unpack", str(tmp_path / "parts"), str(tmp_path / "there")]) == 2


def test_sizes_are_told_in_mebibytes(workdir, tmp_path, capsys):
    assert carry.main(["pack", str(workdir), str(tmp_path / "p"), "--megabytes=0.0025"]) == 0
    paths = list((tmp_path / "p").iterdir())
    assert f"MiB in {len(paths)} files" in capsys.readouterr().out
    assert max(path.stat().st_size for path in paths) == int(0.0025 * 2**20)
    assert carry.main(["unpack", str(tmp_path / "p"), str(tmp_path / "there")]) == 0
    assert "goes on from step 16" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["inf", "nan", "0", "-1", "many"])
def test_a_size_that_is_none_is_refused_by_name(workdir, tmp_path, capsys, text):
    with pytest.raises(SystemExit):
        carry.main(["pack", str(workdir), str(tmp_path / "p"), f"--megabytes={text}"])
    assert f"argument --megabytes: {text!r} must be a number, above 0" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_parts_may_be_larger_than_any_file(workdir, tmp_path):
    assert carry.main(["pack", str(workdir), str(tmp_path / "p"), "--megabytes=1e30"]) == 0
    assert len(list((tmp_path / "p").iterdir())) == 1
