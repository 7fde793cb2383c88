import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnvit_jax.checkpoint import Checkpoints


def state(value):
    return {"a": jnp.arange(5000.0) + value, "b": {"step": jnp.int32(value)}}


def save_all(folder, accuracies, keep=2):
    with Checkpoints(folder, keep) as checkpoints:
        for step, accuracy in accuracies.items():
            checkpoints.save(step, state(step), accuracy)


def truncate(folder, step):
    """Cuts the largest file of a checkpoint in half."""
    files = [p for p in pathlib.Path(folder, str(step)).rglob("*") if p.is_file()]
    largest = max(files, key=os.path.getsize)
    os.truncate(largest, largest.stat().st_size // 2)


def restore(folder):
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore_newest(state(0))


def test_an_empty_folder_holds_none(tmp_path):
    assert restore(tmp_path) is None


def test_what_was_saved_comes_back_bit_for_bit(tmp_path):
    save_all(tmp_path, {7: 0.5})
    step, found = restore(tmp_path)
    assert step == 7
    jax.tree.map(np.testing.assert_array_equal, found, state(7))


def test_the_newest_and_the_best_are_kept(tmp_path):
    save_all(tmp_path, {1: 0.5, 2: 0.9, 3: 0.7, 4: 0.8, 5: None})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == [2, 4, 5]


def test_saving_a_step_again_changes_nothing(tmp_path):
    save_all(tmp_path, {1: 0.5})
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(99))
    assert int(restore(tmp_path)[1]["b"]["step"]) == 1


def test_a_truncated_checkpoint_gives_way_to_the_one_before(tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    save_all(folder, {1: None, 2: None})
    truncate(folder, 2)
    step, found = restore(folder)
    assert (step, int(found["b"]["step"])) == (1, 1)
    assert "checkpoint 2" in caplog.text
    assert "cannot be read" in caplog.text
    assert (tmp_path / "damaged-checkpoint-2").exists()
    save_all(folder, {2: None})
    assert restore(folder)[0] == 2


def test_an_error_if_none_can_be_read_and_nothing_is_lost(tmp_path):
    folder = tmp_path / "checkpoints"
    save_all(folder, {1: None, 2: None})
    for step in (1, 2):
        truncate(folder, step)
    with pytest.raises(ValueError, match=r"none of the checkpoints \[2, 1\] in .* can be read"):
        restore(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2"]


def test_a_checkpoint_half_written_is_ignored(tmp_path):
    save_all(tmp_path, {1: None})
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, state(2))
        (tmp_path / "2").rename(tmp_path / "2.orbax-checkpoint-tmp")
    assert restore(tmp_path)[0] == 1
