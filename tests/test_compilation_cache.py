import os
import subprocess
import sys

import pytest

from snnvit_jax.xla import compilation_cache

COMPILES = """
import jax
from snnvit_jax.xla import compilation_cache
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
compilation_cache.use()
print(jax.config.jax_compilation_cache_dir)
jax.jit(lambda x: x + 1)(1.0)
"""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HOME": "/home/a"}, "/home/a/.cache/snnvit_jax/node7"),
        ({"HOME": "/home/a", "XDG_CACHE_HOME": "/scratch"}, "/scratch/snnvit_jax/node7"),
        ({"HOME": "/home/a", "XDG_CACHE_HOME": ""}, "/home/a/.cache/snnvit_jax/node7"),
    ],
)
def test_each_host_has_its_own_folder(environment, expected):
    assert str(compilation_cache.directory(environment, "node7")) == expected


def compile_with(**environment):
    """Compiles a program in a process of its own; returns what it says the folder is."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    found = subprocess.run(
        [sys.executable, "-c", COMPILES],
        env={**inherited, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.strip()


def test_programs_are_kept_unless_jax_is_told_otherwise(tmp_path):
    home, other, unwritable = tmp_path / "home", tmp_path / "other", tmp_path / "file"
    unwritable.write_text("no folder")
    folder = compile_with(XDG_CACHE_HOME=str(home))
    assert folder.startswith(str(home))
    assert list(home.rglob("jit_*"))
    assert compile_with(XDG_CACHE_HOME=str(home), JAX_COMPILATION_CACHE_DIR=str(other)) == str(
        other
    )
    assert list(other.rglob("jit_*"))
    compile_with(XDG_CACHE_HOME=str(unwritable))  # does without
