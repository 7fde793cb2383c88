"""What all tests share: a compilation cache, 64-bit mode and one small model that fires."""

import os
import pathlib
import shutil
from typing import Any, NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import snnvit_jax as snn
from snnvit_jax.time_steps import masks

# Small models take far longer to compile than to run, and a sixth of that without optimisations.
# Set before jax starts its devices, for the processes that tests start too; your own value wins.
_FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if jax.__version_info__ < (0, 11):  # later ones do not know it, and stop at once
    _FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", _FLAGS)

# Most of the time goes into compilation: keep its results, so that a second run is quick.
_CACHE = pathlib.Path(__file__).parents[1] / ".jax_cache"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_CACHE)  # for the processes that tests start
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

# No deadline, because a first call compiles; the same examples in every run, on every machine.
hypothesis.settings.register_profile("snnvit", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("snnvit")


@pytest.fixture(scope="module", autouse=True)
def forgotten_programs():
    """Gives the memory of a file's compiled programs back: together they need gigabytes."""
    yield
    jax.clear_caches()


class Tiny(NamedTuple):
    """A small Spikformer of one block in which every layer fires, differently, at every step."""

    model: Any
    variables: dict
    images: np.ndarray


@pytest.fixture
def x64():
    """Runs one test with 64-bit types enabled, without leaking into others."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def lively():
    """Returns a function: model -> variables that make every layer fire."""
    return _lively_variables


@pytest.fixture(scope="session")
def tiny():
    model = snn.create_model(
        "spikformer_2_384", 3, image_size=16, time_steps=4, embed_dim=32, num_heads=2, depth=1
    )
    images = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
    return Tiny(model, _lively_variables(model), images)


@pytest.fixture(scope="session")
def tiny_energy(tiny):
    """The energy report of the small model on its images."""
    return snn.energy_report(tiny.model, tiny.variables, tiny.images)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run from start to end, and its summary."""
    import tiny_run  # late: only tests of runs need it

    from snnvit_jax.runs import loop

    folder = tmp_path_factory.mktemp("run") / "work"
    return folder, loop.Run(tiny_run.tiny_config(), folder).train()


@pytest.fixture
def copy(finished, tmp_path):
    return pathlib.Path(shutil.copytree(finished[0], tmp_path / "work"))


def _lively_variables(model, channels=3):
    """Random numbers in the shapes of a model, with currents spread around the threshold.

    The model's own initial values hardly make it fire, and take seconds to compile.
    """
    rng = np.random.default_rng(1)
    images = jnp.zeros((1, *model.config.image_size, channels))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    draw = {
        "kernel": lambda shape: rng.uniform(-1, 1, shape) * (3 / np.prod(shape[:-1])) ** 0.5,
        "scale": lambda shape: rng.uniform(1, 2, shape),
        "bias": lambda shape: rng.uniform(0.0, 2.5, shape),
        "mean": np.zeros,
        "var": np.ones,
        masks.SCORE: lambda shape: masks.initial_scores(*shape),
        "tau_logit": np.zeros,
        "firing_rate_x": lambda shape: rng.uniform(0.1, 0.5, shape),
        "firing_rate_attn": lambda shape: rng.uniform(0.1, 0.5, shape),
        "time_kernel": lambda shape: rng.uniform(-0.5, 1, shape),
        "time_bias": lambda shape: np.full(shape, -0.5),
    }
    flat = traverse_util.flatten_dict(shapes)
    return traverse_util.unflatten_dict(
        {path: jnp.float32(draw[path[-1]](leaf.shape)) for path, leaf in flat.items()}
    )
