"""`lif_scan` against a loop over its steps: the same bits, a program of bounded size."""

import functools
import itertools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from snnvit_jax.neurons import RESETS, SURROGATES, lif_scan, lif_step
from snnvit_jax.xla.scan import UNROLL, scan_steps
from snnvit_jax.xla.traced import kept_bytes, tree_bytes

TABLE = {
    "reset": tuple(RESETS),
    "surrogate": tuple(SURROGATES),
    "tau": (None, 1.0, 1.5, 2.0, 10.0),
    "detach_reset": (True, False),
    "dtype": ("float32", "bfloat16", "float64"),
    "axis": (0, 1, 2),
    "time_steps": (1, 4, 16, 17, 40),
}


def covering(table, seed=0):
    """Rows of a table such that any two values of two columns occur in one of them."""
    draw = random.Random(seed)
    pairs = {
        ((a, x), (b, y))
        for a, b in itertools.combinations(table, 2)
        for x in table[a]
        for y in table[b]
    }
    while pairs:
        rows = [{name: draw.choice(values) for name, values in table.items()} for _ in range(50)]
        covered = [set(itertools.combinations(row.items(), 2)) & pairs for row in rows]
        best = max(range(len(rows)), key=lambda i: len(covered[i]))
        pairs -= covered[best]
        if covered[best]:
            yield rows[best]


CASES = list(covering(TABLE))


def looped(current, tau, reset, surrogate, detach_reset, axis):
    """`lif_scan`, step by step in Python."""
    membrane, spikes = 0.0, []
    for t in range(current.shape[axis]):
        x = jax.lax.index_in_dim(current, t, axis, keepdims=False)
        membrane, spike, _ = lif_step(
            jnp.broadcast_to(jnp.asarray(membrane, x.dtype), x.shape),
            x,
            None if tau is None else jnp.asarray(tau, x.dtype),
            jnp.asarray(1.0, x.dtype),
            reset,
            surrogate,
            detach_reset=detach_reset,
        )
        spikes.append(spike)
    return jnp.stack(spikes, axis)


def scanned(current, tau, reset, surrogate, detach_reset, axis):
    return lif_scan(current, tau, 1.0, reset, surrogate, detach_reset=detach_reset, axis=axis)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_a_scan_and_its_gradient_are_those_of_a_loop(case, x64):
    """Spikes to the bit; gradients too, but for the order of products with a division by tau.

    The compiler chooses that order, differently in a loop and in what is written out.
    """
    case = dict(case)
    dtype, time_steps, tau = (case.pop(name) for name in ("dtype", "time_steps", "tau"))
    shape = [3, 2, 5]
    shape[case["axis"]] = time_steps
    rng = np.random.default_rng(0)
    current = jnp.asarray(rng.normal(0.9, 1.2, shape) * (tau or 1), dtype)
    upstream = jnp.asarray(rng.normal(size=shape), dtype)

    @functools.partial(jax.jit, static_argnums=0)
    def both(run, current, upstream, tau):
        spikes, pull_back = jax.vjp(lambda x: run(x, tau, **case), current)
        return spikes, pull_back(upstream)[0]

    found, expected = (both(run, current, upstream, tau) for run in (scanned, looped))
    assert {x.dtype for x in (*found, *expected)} == {current.dtype}
    assert expected[0].any()
    assert expected[1].any()
    np.testing.assert_array_equal(found[0], expected[0])
    if tau in (None, 1.0) or dtype == "bfloat16":
        np.testing.assert_array_equal(found[1], expected[1])
    else:
        eps = float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(found[1], expected[1], 32 * eps, 32 * eps)


# ---------------------------------------------------------------- the program


def gradient(time_steps, **settings):
    """The gradient of a scan, traced for a current [T, 64]."""
    total = lambda x: jnp.sum(jnp.square(lif_scan(x, **settings)))  # noqa: E731
    return jax.make_jaxpr(jax.grad(total))(jnp.ones((time_steps, 64))).jaxpr


def equations(jaxpr):
    """The primitives of a program, those of its loops and branches too."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def test_a_scan_is_one_operation_however_many_steps_it_takes():
    sizes = {T: len(list(equations(gradient(T)))) for T in (4, 16, 32, 128, 1024)}
    assert len(set(sizes.values())) == 1, sizes
    assert list(equations(gradient(128))).count("scan") == 2  # forward and backward


def compiled_gradient(time_steps):
    total = lambda x: jnp.sum(jnp.square(lif_scan(x)))  # noqa: E731
    return jax.jit(jax.grad(total)).lower(jnp.ones((time_steps, 64))).compile()


def test_beyond_sixteen_steps_the_compiled_program_loops_and_grows_no_more():
    programs = {T: compiled_gradient(T).as_text() for T in (4, 16, 32, 128)}
    assert " while(" not in programs[4]
    assert " while(" not in programs[16]
    assert programs[32].count(" while(") == programs[128].count(" while(") == 2
    lines = {T: len(program.splitlines()) for T, program in programs.items()}
    assert lines[128] < 1.1 * lines[32]


def test_memory_grows_in_proportion_to_the_time_steps():
    def kept(steps):
        return kept_bytes(lambda x: (jnp.sum(lif_scan(x)), None), jnp.ones((steps, 64)))

    one_step = 64 * 4
    assert kept(128) - kept(64) == 2 * (kept(64) - kept(32))
    assert kept(128) < 8 * 128 * one_step
    reserved = {
        T: compiled_gradient(T).memory_analysis().temp_size_in_bytes for T in (64, 128, 256)
    }
    assert reserved[256] - reserved[128] <= 2.2 * (reserved[128] - reserved[64])
    assert reserved[256] < 8 * 256 * one_step


def test_the_carry_and_every_output_of_a_step_come_back():
    xs = jnp.arange(2 * (UNROLL + 3) * 4.0).reshape(2, -1, 4)

    def step(total, x):
        return total + x, (total, {"twice": 2 * x})

    last, (before, rest) = scan_steps(step, jnp.zeros((2, 4)), xs, axis=1)
    np.testing.assert_array_equal(last, xs.sum(1))
    np.testing.assert_array_equal(before, np.cumsum(xs, 1) - xs)
    np.testing.assert_array_equal(rest["twice"], 2 * xs)
    assert tree_bytes(rest) == xs.nbytes


@pytest.mark.parametrize("time_steps", [1, 5, 40])
def test_a_learned_time_constant_has_the_gradient_of_a_loop(time_steps, x64):
    rng = np.random.default_rng(0)
    current, upstream = (rng.normal(mean, 1.2, (time_steps, 30)) for mean in (0.9, 0.0))

    @functools.partial(jax.jit, static_argnums=0)
    def to_tau(run, tau):
        total = lambda tau: jnp.vdot(run(current, tau, "soft", "arctan", False, 0), upstream)  # noqa: E731
        return jax.grad(total)(tau)

    np.testing.assert_allclose(to_tau(scanned, 1.7), to_tau(looped, 1.7), rtol=1e-12)
