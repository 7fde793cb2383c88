import errno
import hashlib
import os
import pathlib
import shutil
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from snnvit_jax.checkpoints import Measured, checksums, reading
from snnvit_jax.checkpoints.checkpoints import (
    Checkpoints,
    add_measured,
    load_variables,
    restore,
    restore_best,
)


def state(value):
    return {"a": jnp.arange(5000.0) + value, "b": {"step": jnp.int32(value)}}


def save_all(folder, accuracies, keep=2):
    with Checkpoints(folder, keep) as checkpoints:
        for step, accuracy in accuracies.items():
            measured = accuracy if accuracy is None else Measured(accuracy)
            checkpoints.save(step, state(step), measured)


def truncate(folder, step):
    """Cuts the largest file of a checkpoint in half."""
    files = [p for p in pathlib.Path(folder, str(step)).rglob("*") if p.is_file()]
    largest = max(files, key=os.path.getsize)
    os.truncate(largest, largest.stat().st_size // 2)


def test_an_empty_folder_holds_none(tmp_path):
    assert restore(tmp_path, state(0)) == (None, [])
    assert restore(tmp_path / "none", state(0)) == (None, [])


def test_what_was_saved_comes_back_bit_for_bit(tmp_path):
    save_all(tmp_path, {7: 0.5})
    (step, found), damaged = restore(tmp_path, state(0))
    assert not damaged
    assert step == 7
    jax.tree.map(np.testing.assert_array_equal, found, state(7))


def test_the_newest_and_the_best_are_kept(tmp_path):
    save_all(tmp_path, {1: 0.5, 2: 0.9, 3: 0.7, 4: 0.8, 5: None})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == [2, 4, 5]


def test_a_checkpoint_above_the_budget_is_best_only_among_such(tmp_path):
    found = {
        1: Measured(0.5, "val", on_budget=False),
        2: Measured(0.9, "val", on_budget=False),
        3: Measured(0.7, "val"),
        4: Measured(0.7, "val"),
        5: Measured(0.6, "val"),
    }
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        for step, measured in found.items():
            checkpoints.save(step, state(step), measured)
            checkpoints.wait()
            best = [1, 2, 3, 4, 4][step - 1]
            assert checkpoints.steps == sorted({best, step})
    step, loaded, measured = restore_best(tmp_path, state(0))
    assert (step, int(loaded["b"]["step"]), measured) == (4, 4, found[4])


def test_a_best_checkpoint_that_is_damaged_or_was_never_measured_is_named(tmp_path):
    folder = tmp_path / "checkpoints"
    save_all(folder, {1: None, 2: None})
    message = f"no best checkpoint is recorded in {folder} .checkpoints: 1, 2, none .*=last"
    with pytest.raises(ValueError, match=message):
        restore_best(folder, state(0))
    with pytest.raises(ValueError, match=message):
        load_variables(folder, "best")
    add_measured(folder, 1, Measured(0.5, "val", on_budget=False))
    assert restore_best(folder, state(0))[0] == 1
    truncate(folder, 1)
    with pytest.raises(ValueError, match=f"checkpoint {folder / '1'} cannot be read"):
        restore_best(folder, state(0))
    (folder / "2" / "metrics").mkdir(exist_ok=True)
    (folder / "2" / "metrics" / "metrics").write_text("[1]")
    with pytest.raises(ValueError, match="2/metrics/metrics does not tell what was measured"):
        restore_best(folder, state(0))


def test_saving_a_step_again_changes_nothing(tmp_path):
    save_all(tmp_path, {1: 0.5})
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(99))
    assert int(restore(tmp_path, state(0))[0][1]["b"]["step"]) == 1


def test_the_state_may_be_donated_while_it_is_written(tmp_path):
    overwrite = jax.jit(lambda x: x + 1.0, donate_argnums=0)
    x = jnp.arange(4e6)
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, {"x": x})
            for _ in range(5):  # in the same memory, as long as it is being written
                x = overwrite(x)
    for step in (1, 2, 3):
        (_, found), _ = restore(only(tmp_path, step), {"x": x})
        np.testing.assert_array_equal(found["x"], np.arange(4e6) + 5 * (step - 1))


def only(folder, step):
    """A folder of checkpoints with one of another folder in it."""
    target = folder.with_name(f"only-{step}")
    shutil.copytree(folder / str(step), target / str(step))
    return target


@pytest.mark.parametrize("seen_by", ["check", "wait", "save", "close"])
def test_a_save_that_fails_in_the_background_is_told(tmp_path, monkeypatch, seen_by):
    def full(folder):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checksums, "write", full)
        checkpoints.save(1, state(1))
        while not checkpoints._pending.done():
            time.sleep(0.01)
    actions = {
        "check": checkpoints.check,
        "wait": checkpoints.wait,
        "save": lambda: checkpoints.save(2, state(2)),
        "close": lambda: checkpoints.__exit__(None, None, None),
    }
    with pytest.raises(OSError, match="No space left on device"):
        actions[seen_by]()
    checkpoints.check()  # told once


def test_a_truncated_checkpoint_gives_way_to_the_one_before(tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    save_all(folder, {1: None, 2: None})
    truncate(folder, 2)
    (step, found), damaged = restore(folder, state(0))
    assert (step, int(found["b"]["step"]), damaged) == (1, 1, [2])
    assert "checkpoint 2" in caplog.text
    assert "cannot be read" in caplog.text
    with Checkpoints(folder, damaged=damaged) as checkpoints:
        assert (tmp_path / "damaged-checkpoint-2").exists()
        checkpoints.save(2, state(2))
    assert restore(folder, state(0))[0][0] == 2


@pytest.mark.parametrize("how", ["halved", "emptied", "removed"])
def test_damage_to_any_file_never_gives_wrong_numbers(tmp_path, how):
    original = tmp_path / "original"
    save_all(original, {1: 0.5, 2: 0.6})
    files = [p.relative_to(original) for p in (original / "2").rglob("*") if p.is_file()]
    assert len(files) > 5
    for number, file in enumerate(files):
        folder = shutil.copytree(original, tmp_path / str(number) / "checkpoints")
        size = {"halved": (folder / file).stat().st_size // 2, "emptied": 0}.get(how)
        os.truncate(folder / file, size) if size is not None else (folder / file).unlink()
        (step, found), damaged = restore(folder, state(0))
        assert int(found["b"]["step"]) == step == (1 if damaged else 2), file
        np.testing.assert_array_equal(found["a"], state(step)["a"])
        with Checkpoints(folder, damaged=damaged) as checkpoints:
            checkpoints.save(3, state(3), Measured(0.7))
        assert restore(folder, state(0))[0][0] == 3


def test_a_flipped_bit_in_any_file_is_found(tmp_path):
    original = tmp_path / "original"
    save_all(original, {1: 0.5, 2: 0.6})
    files = [p.relative_to(original) for p in (original / "2").rglob("*") if p.is_file()]
    for file in [*files, pathlib.Path("2.sha256")]:
        folder = shutil.copytree(original, tmp_path / "copy")
        data = bytearray((folder / file).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / file).write_bytes(data)
        (step, found), damaged = restore(folder, state(0))
        assert (step, damaged) == (1, [2]), file
        np.testing.assert_array_equal(found["a"], state(1)["a"])
        shutil.rmtree(folder)


def test_variables_of_a_damaged_checkpoint_are_not_loaded(tmp_path):
    save_all(tmp_path, {1: None})
    (tmp_path / "1" / "state" / "manifest.ocdbt").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be read: .*manifest.ocdbt is not what"):
        load_variables(tmp_path)


def test_checksums_go_with_their_checkpoints(tmp_path):
    save_all(tmp_path, {1: 0.5, 2: 0.9, 3: 0.7, 4: 0.8})
    sums = sorted(path.name for path in tmp_path.glob("*.sha256"))
    assert sums == ["2.sha256", "3.sha256", "4.sha256"]
    for line in (tmp_path / "4.sha256").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest


def test_a_checkpoint_without_checksums_is_used_and_said_to_be_unchecked(tmp_path, caplog):
    save_all(tmp_path, {1: None})
    (tmp_path / "1.sha256").unlink()
    assert restore(tmp_path, state(0))[0][0] == 1
    assert "has no checksums; it is used unchecked" in caplog.text


@pytest.mark.parametrize("kept", [0, 1])
def test_a_list_of_checksums_that_is_not_complete_leaves_a_checkpoint_unchecked(
    tmp_path, caplog, kept
):
    save_all(tmp_path, {1: None})
    sums = tmp_path / "1.sha256"
    sums.write_text("".join(sums.read_text().splitlines(keepends=True)[:kept]))
    assert restore(tmp_path, state(0))[0][0] == 1
    assert "has no checksums; it is used unchecked" in caplog.text


def test_a_checkpoint_of_another_model_is_not_taken_for_a_damaged_one(tmp_path):
    save_all(tmp_path, {1: None})
    with pytest.raises(ValueError, match=r"another model .* float32\[5000\] .* float32\[7\]"):
        restore(tmp_path, {"a": jnp.zeros(7), "b": {"step": jnp.int32(0)}})
    assert restore(tmp_path, state(0))[0][0] == 1


@pytest.mark.parametrize("average", [None, {"params": jnp.ones(2), "batch_stats": jnp.ones(1)}])
def test_variables_are_loaded_without_knowing_the_model(tmp_path, average):
    tree = {"params": jnp.zeros(2), "batch_stats": jnp.zeros(1), "average": average}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, tree)
    found = load_variables(tmp_path)
    assert float(found["params"][0]) == (average is not None)
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        load_variables(tmp_path / "none")


@pytest.fixture
def no_pauses(monkeypatch):
    """The pauses between attempts, which last no time."""
    slept = []
    monkeypatch.setattr(reading.time, "sleep", slept.append)
    return slept


def failing(function, times):
    """A function that fails as a file system does, so many times; then it works."""
    left = [times]

    def attempt(*args, **kwargs):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.EIO, "Input/output error")
        return function(*args, **kwargs)

    return attempt


READERS = {"checksums.check": (checksums, "check"), "orbax": (ocp, "load_checkpointables")}


@pytest.mark.parametrize("reader", READERS)
def test_a_read_error_that_passes_costs_nothing(tmp_path, monkeypatch, caplog, no_pauses, reader):
    save_all(tmp_path, {1: None, 2: None})
    module, name = READERS[reader]
    monkeypatch.setattr(module, name, failing(getattr(module, name), times=2))
    (step, _), damaged = restore(tmp_path, state(0))
    assert (step, damaged, no_pauses) == (2, [], [1.0, 4.0])
    assert "Input/output error; trying again in 1 s" in caplog.text


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("reader", READERS)
def test_a_read_error_that_stays_is_no_damage(tmp_path, monkeypatch, no_pauses, reader, sums):
    save_all(tmp_path, {1: None, 2: None})
    if not sums:
        (tmp_path / "2.sha256").unlink()
    module, name = READERS[reader]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, failing(getattr(module, name), times=99))
        for load in (lambda: restore(tmp_path, state(0)), lambda: load_variables(tmp_path)):
            with pytest.raises(OSError, match=r"/2 cannot be read, in 3 attempts: .*stays as it"):
                load()
    assert restore(tmp_path, state(0))[0][0] == 2


def test_a_read_error_of_metrics_moves_nothing_aside(tmp_path, monkeypatch, no_pauses):
    folder = tmp_path / "checkpoints"
    save_all(folder, {1: 0.5, 2: 0.6})
    original = pathlib.Path.read_bytes
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "read_bytes", failing(original, times=1))
        with Checkpoints(folder) as checkpoints:
            assert checkpoints.steps == [1, 2]
        patch.setattr(pathlib.Path, "read_bytes", failing(original, times=99))
        with pytest.raises(OSError, match="cannot be read, in 3 attempts"):
            Checkpoints(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints"]


def test_a_sound_checkpoint_that_does_not_load_is_no_damage(tmp_path, monkeypatch, no_pauses):
    save_all(tmp_path, {1: None, 2: None})

    def refuse(*_):
        raise KeyError("a format of the future")

    with monkeypatch.context() as patch:
        patch.setattr(ocp, "load_checkpointables", refuse)
        with pytest.raises(ValueError, match="/2 is whole, its checksums hold, .*the future") as e:
            restore(tmp_path, state(0))
    assert "remove" not in str(e.value)
    assert restore(tmp_path, state(0))[0][0] == 2


class Chain(NamedTuple):
    """A part of an optimiser's state."""

    count: jax.Array
    mu: dict


@pytest.mark.parametrize("stored", ["as it is", "a part before", "parts after", "another depth"])
def test_a_state_is_found_whatever_chain_it_stands_in(tmp_path, stored):
    adam = Chain(jnp.int32(3), {"a": jnp.arange(4.0), "b": {"c": jnp.ones((2, 3))}})
    chains = {
        "as it is": (adam, ()),
        "a part before": ((), adam),
        "parts after": (adam, (), Chain(jnp.int32(9), {"a": jnp.zeros(4)})),
        "another depth": [((), [adam]), None],
    }
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"opt_state": chains[stored], "step": jnp.int32(5)})
    template = {"opt_state": (jax.tree.map(jnp.zeros_like, adam), ()), "step": jnp.int32(0)}
    (_, found), _ = restore(tmp_path, template)
    assert jax.tree.structure(found) == jax.tree.structure(template)
    jax.tree.map(np.testing.assert_array_equal, found["opt_state"][0], adam)


def test_arrays_of_another_model_are_named(tmp_path):
    save_all(tmp_path, {1: None})
    template = {"a": jnp.zeros(7), "b": {"steps": jnp.int32(0)}}
    with pytest.raises(ValueError, match="another model") as error:
        restore(tmp_path, template)
    for text in (
        "a: float32[5000] stored, float32[7] wanted",
        "b/steps: nothing stored, int32[] wanted",
        "b/step: int32[] stored, nothing wanted",
    ):
        assert text in str(error.value)


def test_an_error_if_none_can_be_read_and_nothing_is_lost(tmp_path):
    folder = tmp_path / "checkpoints"
    save_all(folder, {1: None, 2: None})
    for step in (1, 2):
        truncate(folder, step)
    with pytest.raises(ValueError, match=r"none of the checkpoints \[2, 1\] in .* can be read"):
        restore(folder, state(0))
    assert sorted(p.name for p in folder.iterdir()) == ["1", "1.sha256", "2", "2.sha256"]


def test_a_checkpoint_half_written_is_ignored(tmp_path):
    save_all(tmp_path, {1: None})
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, state(2))
        checkpoints.wait()
        (tmp_path / "2").rename(tmp_path / "2.orbax-checkpoint-tmp")
    assert restore(tmp_path, state(0))[0][0] == 1
