import jax
import jax.numpy as jnp
import optax
import pytest

from snnvit_jax import training
from snnvit_jax.xla.traced import kept_bytes, traced_flops

IMAGES = jax.ShapeDtypeStruct((2, 8, 8, 3), "float32")
KERNEL = jax.ShapeDtypeStruct((3, 3, 3, 4), "float32")
X, W = jax.ShapeDtypeStruct((3, 5), "float32"), jax.ShapeDtypeStruct((5, 7), "float32")


def convolution(x, kernel):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)


@pytest.mark.parametrize(
    ("function", "shapes", "flops"),
    [
        (jnp.matmul, (X, W), 2 * 3 * 5 * 7),
        (lambda x, w: (jnp.sin(x) @ w) * 2 + 1, (X, W), 2 * 3 * 5 * 7),
        (lambda x, w: jnp.sum(jax.jit(jnp.matmul)(x, w)), (X, W), 2 * 3 * 5 * 7),
        (lambda x, w: (x @ w, x @ w)[0], (X, W), 2 * 3 * 5 * 7),  # what nothing uses costs nothing
        (lambda x, w: jax.lax.scan(lambda c, _: (c, x @ w), 0, None, 4)[1], (X, W), 4 * 210),
        (lambda x, w: jax.grad(lambda w: jnp.sum(x @ w))(w), (X, W), 210),
        (lambda x, w: jax.grad(lambda *a: jnp.sum(jnp.matmul(*a) ** 2), (0, 1))(x, w), (X, W), 630),
        (convolution, (IMAGES, KERNEL), 2 * (2 * 8 * 8 * 4) * (3 * 3 * 3)),
    ],
)
def test_operations_are_counted(function, shapes, flops):
    assert traced_flops(jax.jit(function).trace(*shapes)) == flops


def test_what_the_backward_pass_needs_is_counted():
    plain = lambda w, x: (jnp.sum(jnp.sin(x @ w)), None)  # noqa: E731
    # The product's other operand, 3 x 5, and the cosine of the product, 3 x 7, in 4 bytes each.
    assert kept_bytes(plain, W, X) == 4 * (3 * 5 + 3 * 7)
    again = jax.checkpoint(plain)
    assert kept_bytes(again, W, X) == 4 * (3 * 5 + 5 * 7)  # both operands, to multiply again


def test_a_training_step_takes_three_times_the_arithmetic_of_a_forward_pass(tiny):
    """But for the gradient of the image, which nobody asks for; recomputation is not counted."""
    procedure = training.Procedure(tiny.model, optax.sgd(0.1))
    state = jax.eval_shape(lambda v: training.state_from_variables(procedure, v), tiny.variables)
    batch = {"image": tiny.images, "label": jnp.zeros(3, int)}
    step = jax.jit(training.train_step.__wrapped__, static_argnames="procedure")
    forward = traced_flops(jax.jit(tiny.model.apply).trace(tiny.variables, tiny.images))
    embedding = 2 * 3 * (16 * 16) * (9 * 3) * (32 // 8)
    total = traced_flops(step.trace(state, batch, procedure=procedure))
    assert forward < total < 3 * forward
    assert total == pytest.approx(3 * forward - embedding, rel=0.02)
