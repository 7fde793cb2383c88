"""Surrogate gradients: what the derivative of a spike is taken to be.

A spike is a step function of the distance u = h - threshold between membrane potential and
threshold, so its derivative is zero almost everywhere. In the backward pass it is replaced by a
bump around u = 0, one line per shape in `SURROGATES` (Neftci, Mostafa, Zenke: "Surrogate gradient
learning in spiking neural networks", 2019).
"""

import functools

import jax
import jax.numpy as jnp

from snnvit_jax.common import values


def _sigmoid(u, alpha):
    s = jax.nn.sigmoid(alpha * u)
    return alpha * s * (1 - s)


def _arctan(u, alpha):
    return alpha / 2 / (1 + jnp.square(jnp.pi / 2 * alpha * u))


def _triangle(u, alpha):
    return alpha * jnp.maximum(1 - alpha * jnp.abs(u), 0)


def _rectangle(u, alpha):
    return jnp.where(jnp.abs(alpha * u) < 0.5, alpha, 0).astype(u.dtype)


# name -> (derivative of the spike at distance u, default sharpness alpha). Every shape has unit
# area, so that alpha alone sets the width and the peak, whatever the shape.
SURROGATES = {
    "sigmoid": (_sigmoid, 4.0),  # alpha 4: the published spiking transformers
    "arctan": (_arctan, 2.0),  # Fang et al. 2021 (PLIF)
    "triangle": (_triangle, 1.0),  # Bellec et al. 2018
    "rectangle": (_rectangle, 1.0),  # Wu et al. 2018 (STBP)
}


def surrogate_gradient(u, surrogate="sigmoid", alpha=None):
    """Returns the surrogate derivative of a spike with respect to its membrane potential.

    With s the logistic function: sigmoid α·s(αu)·(1 - s(αu)); arctan α/2 / (1 + (π/2·αu)²);
    triangle α·max(0, 1 - |αu|); rectangle α where |αu| < 1/2, else 0.

    Args:
      u: distance h - threshold to the threshold, any shape, floating point.
      surrogate: one of `SURROGATES`.
      alpha: sharpness, > 0, a plain number and never a traced one; None takes the shape's default.

    Returns:
      The derivative, shaped and typed like `u`.

    Raises:
      ValueError: for an unknown surrogate or a sharpness that is no plain number above 0.
    """
    check_surrogate(surrogate, alpha)
    derivative, default_alpha = SURROGATES[surrogate]
    return derivative(u, default_alpha if alpha is None else alpha)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def fire(u, surrogate="sigmoid", alpha=None):
    """Returns spikes: 1 where u >= 0 (a tie fires), else 0; differentiates by the surrogate.

    Args:
      u: distance h - threshold to the threshold, any shape, floating point.
      surrogate: one of `SURROGATES`.
      alpha: sharpness, > 0, a plain number and never a traced one; None takes the shape's default.

    Returns:
      Spikes in {0, 1}, shaped and typed like `u`.

    Raises:
      ValueError: for an unknown surrogate or a sharpness that is no plain number above 0.
    """
    check_surrogate(surrogate, alpha)
    return (u >= 0).astype(u.dtype)


@fire.defjvp
def _fire_jvp(surrogate, alpha, primals, tangents):
    (u,), (du,) = primals, tangents
    return fire(u, surrogate, alpha), surrogate_gradient(u, surrogate, alpha) * du


def check_surrogate(surrogate, alpha=None):
    """Raises ValueError for an unknown surrogate, or a sharpness that is no plain number above 0.

    Args:
      surrogate: to be a key of `SURROGATES`.
      alpha: its sharpness, or None.
    """
    values.one_of(SURROGATES).check("surrogate", surrogate)
    if isinstance(alpha, jax.core.Tracer):
        raise ValueError(
            "alpha must be a plain number: the sharpness of a surrogate is part of the program, "
            "and cannot be traced or learned; give it outside of jax.jit, or make it static"
        )
    values.optional(values.number(above=0)).check("alpha", values.scalar(alpha))
