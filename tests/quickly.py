"""Compilation for programs that run once."""

import jax

QUICKLY = {"xla_backend_optimization_level": 0}


def quickly(function, *arguments):
    """Returns function(*arguments), compiled in little time."""
    return jax.jit(function, compiler_options=QUICKLY)(*arguments)
