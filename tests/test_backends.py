"""The compiler's options: `xla.backends.jit` computes what `jax.jit` does."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np

from snnvit_jax.xla import backends


def convolution(x, kernel):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def test_on_a_cpu_convolutions_are_left_to_xla():
    x, kernel = jnp.ones((4, 16, 16, 32)), jnp.ones((3, 3, 32, 32))
    text = backends.jit(convolution).lower(x, kernel).compile().as_text()
    assert "ynn" not in text
    assert " convolution(" in text
    np.testing.assert_allclose(
        backends.jit(convolution)(x, kernel), convolution(x, kernel), rtol=1e-5
    )


def test_a_compiled_function_keeps_its_name_and_takes_static_arguments():
    @functools.partial(backends.jit, static_argnames="power")
    def raised(x, *, power):
        """To a power."""
        return x**power

    assert raised.__doc__ == "To a power."
    assert raised(2.0, power=3) == 8
    assert "f32" in raised.lower(2.0, power=2).as_text()


def test_an_option_that_the_compiler_does_not_take_costs_a_warning(monkeypatch, caplog):
    monkeypatch.setitem(backends.COMPILER_OPTIONS, jax.default_backend(), {"xla_no_such": "1"})
    backends.compiler_options.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert backends.jit(jnp.negative)(1.0) == -1
    assert "does not take {'xla_no_such': '1'}" in caplog.text
    backends.compiler_options.cache_clear()
