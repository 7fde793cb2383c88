"""Arithmetic of a program, as its compiler counts it."""

from snnvit_jax.xla import backends


def compiled_flops(function, *arguments):
    """Returns the floating-point operations of one call of a function, as `backends.jit` has it.

    A multiply-accumulate is two operations; a window that reaches into padding counts what lies
    inside; every addition, division and comparison counts one. The count is that of XLA's cost
    analysis after optimisation, so what the compiler removes or repeats is seen.

    Args:
      function: of arrays; compiled for these shapes, not run.
      *arguments: arrays, `jax.ShapeDtypeStruct` or trees of them.

    Returns:
      A float.
    """
    return float(backends.jit(function).lower(*arguments).compile().cost_analysis()["flops"])
