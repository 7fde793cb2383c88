"""Compiled programs kept on disk, so that the second start of the same run compiles nothing."""

import os
import pathlib
import platform

import jax

MOST_BYTES = 4 << 30


def directory(environment, host):
    """Returns the folder for compiled programs.

    Each host has its own: programs for a CPU use the instructions of the CPU they were compiled on,
    and a home folder may be shared by different ones.

    Args:
      environment: {variable: value}, such as `os.environ`; XDG_CACHE_HOME and HOME are read.
      host: name of this machine.
    """
    default = pathlib.Path(environment.get("HOME", "~")).expanduser() / ".cache"
    base = pathlib.Path(environment.get("XDG_CACHE_HOME") or default)
    return base / "snnvit_jax" / (host or "localhost")


def use():
    """Keeps compiled programs from here on; before the first one is compiled.

    JAX's own settings win: JAX_COMPILATION_CACHE_DIR for another folder,
    JAX_ENABLE_COMPILATION_CACHE=false for none. A folder that cannot be written to costs nothing
    but the time to compile again.
    """
    if jax.config.jax_compilation_cache_dir is None:
        folder = directory(os.environ, platform.node())
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", MOST_BYTES)
