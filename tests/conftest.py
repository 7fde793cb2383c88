"""What all tests share: a compilation cache, 64-bit mode and one small model that fires."""

import pathlib
from typing import Any, NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import snnvit_jax as snn

# Most of the time goes into compilation: keep its results, so that a second run is quick.
_CACHE = pathlib.Path(__file__).parents[1] / ".jax_cache"
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

# No deadline, because a first call compiles; the same examples in every run, on every machine.
hypothesis.settings.register_profile("snnvit", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("snnvit")


class Tiny(NamedTuple):
    """A small Spikformer in which every layer fires, differently, at every time step."""

    model: Any
    variables: dict
    images: np.ndarray


@pytest.fixture
def x64():
    """Runs one test with 64-bit types enabled, without leaking into others."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def tiny():
    model = snn.create_model(
        "spikformer_2_384", 3, image_size=16, time_steps=4, embed_dim=32, num_heads=2
    )
    images = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    return Tiny(model, _lively(variables), images)


def _lively(variables):
    """Spreads the currents around the threshold: an untrained network hardly fires."""
    rng = np.random.default_rng(1)
    flat = traverse_util.flatten_dict(variables)
    for path, leaf in flat.items():
        if "_bn" in path[-2] and path[-1] == "bias":
            flat[path] = jnp.float32(rng.uniform(-0.5, 2.5, leaf.shape))
        if "_bn" in path[-2] and path[-1] == "scale":
            flat[path] = jnp.float32(rng.uniform(2, 6, leaf.shape))
    return traverse_util.unflatten_dict(flat)
