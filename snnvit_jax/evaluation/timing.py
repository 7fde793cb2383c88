"""How long programs take, side by side."""

import time

import jax


def interleaved(calls, seconds, least=7):
    """Returns the seconds of every call of several programs.

    They are called in turn, so that all of them see the same load of the machine. Each is called
    once before, which compiles it.

    Args:
      calls: functions without arguments that return arrays.
      seconds: of timing, over all of them, > 0.
      least: calls of each, >= 1.

    Returns:
      A list of lists, one for each program.
    """
    taken = [[] for _ in calls]
    for call in calls:
        jax.block_until_ready(call())
    end = time.perf_counter() + seconds
    while len(taken[0]) < least or time.perf_counter() < end:
        for call, times in zip(calls, taken, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(call())
            times.append(time.perf_counter() - start)
    return taken
