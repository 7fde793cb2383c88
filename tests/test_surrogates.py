"""The surrogate table: every shape against its formula, and what holds for all of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnvit_jax.neurons.surrogates import SURROGATES, fire, surrogate_gradient


def _sigmoid(u, alpha):
    return alpha / (2 + np.exp(alpha * u) + np.exp(-alpha * u))


def _arctan(u, alpha):
    return 2 * alpha / (4 + (np.pi * alpha * u) ** 2)


def _triangle(u, alpha):
    return np.where(np.abs(u) < 1 / alpha, alpha - alpha**2 * np.abs(u), 0)


def _rectangle(u, alpha):
    return np.where(np.abs(u) < 0.5 / alpha, alpha, 0.0)


# name -> (formula, default sharpness), written independently of the library
REFERENCE = {
    "sigmoid": (_sigmoid, 4.0),
    "arctan": (_arctan, 2.0),
    "triangle": (_triangle, 1.0),
    "rectangle": (_rectangle, 1.0),
}
ALPHAS = (None, 0.5, 3.0)
every_surrogate = pytest.mark.parametrize("surrogate", SURROGATES)
every_alpha = pytest.mark.parametrize("alpha", ALPHAS)

DISTANCES = np.concatenate([np.linspace(-3, 3, 121), np.random.default_rng(0).normal(size=200)])


def expected_gradient(u, surrogate, alpha=None):
    formula, default = REFERENCE[surrogate]
    return formula(u, default if alpha is None else alpha)


@functools.partial(jax.jit, static_argnums=(1, 2))
def total_derivative(u, surrogate, alpha=None):
    return jax.grad(lambda u: jnp.sum(fire(u, surrogate, alpha)))(u)


def test_every_surrogate_has_a_reference_here():
    assert set(REFERENCE) == set(SURROGATES)


@every_surrogate
@every_alpha
def test_gradient_of_a_spike_is_the_formula(surrogate, alpha, x64):
    # An edge of the rectangle belongs to neither side: rounding decides there.
    u = DISTANCES[np.abs(np.abs(DISTANCES) * (alpha or 1) - 0.5) > 1e-9]
    expected = expected_gradient(u, surrogate, alpha)
    np.testing.assert_allclose(total_derivative(u, surrogate, alpha), expected, 1e-12, 1e-12)


@every_surrogate
def test_gradient_is_scaled_by_what_arrives_from_above(surrogate, x64):
    weights = np.random.default_rng(1).normal(size=DISTANCES.shape)
    gradient = jax.grad(lambda u: jnp.vdot(weights, fire(u, surrogate)))(DISTANCES)
    expected = weights * expected_gradient(DISTANCES, surrogate)
    keep = np.abs(np.abs(DISTANCES) - 0.5) > 1e-9
    np.testing.assert_allclose(gradient[keep], expected[keep], 1e-12, 1e-12)


@every_surrogate
def test_forward_mode_differentiates_too(surrogate):
    u, du = jnp.float32([-0.4, 0.0, 0.3]), jnp.float32([1.0, -2.0, 0.5])
    spikes, tangent = jax.jvp(lambda u: fire(u, surrogate), (u,), (du,))
    np.testing.assert_array_equal(spikes, [0, 1, 1])
    np.testing.assert_allclose(tangent, du * expected_gradient(np.asarray(u), surrogate), 1e-6)


@every_surrogate
@every_alpha
def test_area_is_one(surrogate, alpha, x64):
    # Midpoint rule over the whole line, u = tan(angle): the arctangent's tails are long.
    n = 100_000
    angle = (np.arange(n) + 0.5) / n * np.pi - np.pi / 2
    heights = surrogate_gradient(np.tan(angle), surrogate, alpha) / np.cos(angle) ** 2
    assert np.sum(heights) * np.pi / n == pytest.approx(1, abs=2e-4)


@every_surrogate
@every_alpha
def test_gradient_is_even_non_negative_and_highest_at_the_threshold(surrogate, alpha, x64):
    right, left = (surrogate_gradient(sign * DISTANCES, surrogate, alpha) for sign in (1, -1))
    np.testing.assert_allclose(left, right, 1e-12, 1e-12)
    assert (right >= 0).all()
    assert (right <= surrogate_gradient(np.zeros(1), surrogate, alpha)).all()


@every_surrogate
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_spikes_are_exact_and_a_tie_fires_in_every_dtype(surrogate, dtype):
    tiny = jnp.finfo(dtype).tiny
    u = jnp.array([-3.0, -tiny, -0.0, 0.0, tiny, 3.0], dtype)
    spikes = fire(u, surrogate)
    assert spikes.dtype == u.dtype
    np.testing.assert_array_equal(spikes.astype(jnp.float32), [0, 0, 1, 1, 1, 1])


@every_surrogate
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_gradient_keeps_the_dtype(surrogate, dtype):
    u = jnp.array([-0.75, -0.25, 0.0, 0.25], dtype)
    gradient = total_derivative(u, surrogate)
    assert gradient.dtype == u.dtype
    expected = expected_gradient(np.float64([-0.75, -0.25, 0.0, 0.25]), surrogate)
    np.testing.assert_allclose(gradient.astype(jnp.float32), expected, rtol=2e-2)


@every_surrogate
def test_gradient_stays_finite_far_from_the_threshold(surrogate):
    gradient = total_derivative(jnp.float32([-1e30, -1e4, 1e4, 1e30]), surrogate)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("function", [fire, surrogate_gradient])
def test_unknown_surrogate_is_named(function):
    with pytest.raises(ValueError, match=r"'gaussian'.*sigmoid"):
        function(jnp.zeros(2), "gaussian")


@pytest.mark.parametrize("function", [fire, surrogate_gradient])
@pytest.mark.parametrize("alpha", [0.0, -2.0, float("nan")])
def test_sharpness_must_be_positive(function, alpha):
    with pytest.raises(ValueError, match=f"alpha={alpha}"):
        function(jnp.zeros(2), "sigmoid", alpha)
