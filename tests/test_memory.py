"""A batch that cannot fit is refused before anything is compiled."""

import re

import jax
import numpy as np
import pytest

from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import experiment, memory
from snnvit_jax.training import memory as needs
from snnvit_jax.xla.memory import device_bytes


def built(**settings):
    config = config_lib.default_config()
    config.model.update({"time_steps": 2, "embed_dim": 16, "num_heads": 2, "depth": 1})
    config.data.image_size = 8
    config.update({"batch_size": 64, "mesh": {"data": 1, "model": 1}, **settings})
    return experiment.build(config)


@pytest.fixture(scope="module")
def small():
    return built()


@pytest.fixture(scope="module")
def needed(small):
    """(bytes of the state, bytes that are kept of each example)."""
    shapes = small.state_shapes
    kept = needs.kept_bytes(small.procedure, shapes, small.image_shape, 8)
    return needs.state_bytes(shapes), kept / 8


def test_the_state_is_counted_whole(small, needed):
    leaves = jax.tree.leaves(small.state_shapes)
    assert needed[0] == sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in leaves)


def test_what_is_kept_grows_with_the_examples_alone(small, needed):
    twice = needs.kept_bytes(small.procedure, small.state_shapes, small.image_shape, 16)
    assert twice / 16 == pytest.approx(needed[1], rel=0.02)
    # At least what every linear map of the block hands on, at every step.
    assert needed[1] > 2 * 4 * 16 * 16 * 4


def test_a_batch_that_cannot_fit_is_refused_with_the_largest_that_can(small, needed):
    state, each = needed
    memory.check(small, available=int(state + 65 * each))
    with pytest.raises(ValueError, match="batch_size=64 needs more than") as caught:
        memory.check(small, available=int(state + 40.5 * each))
    assert re.search(r"at most batch_size=40 can fit.*accumulate=2", str(caught.value))
    with pytest.raises(ValueError, match="not even the smallest"):
        memory.check(small, available=state - 1)


def test_parts_need_less_at_once(needed):
    state, each = needed
    memory.check(built(accumulate=2), available=int(state + 33 * each))
    with pytest.raises(ValueError, match="at most batch_size=60 can fit"):
        memory.check(built(accumulate=2), available=int(state + 30.5 * each))


def test_what_is_small_or_of_unknown_room_is_not_even_traced(small, monkeypatch):
    monkeypatch.setattr(needs, "kept_bytes", None)
    memory.check(small, available=10**12)
    monkeypatch.setattr(memory, "device_bytes", lambda: None)
    memory.check(small)


def test_a_cpu_has_all_memory_of_its_machine():
    assert device_bytes() > 2**28
