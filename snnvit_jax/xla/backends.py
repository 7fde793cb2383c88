"""What is written differently for the CPU: the only place that asks which backend computes.

Each has a plain form for the others, which is its reference in the tests. Measured in
experiments/benchmarks.
"""

import functools
import logging

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

# On CPU, XLA leaves convolutions and products to YNNPACK by default. Its reductions are several
# times faster than XLA's own, its convolutions 1.5 (forward) to 4 times (gradients of the weights)
# slower.
COMPILER_OPTIONS = {
    "cpu": {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
        "xla_cpu_copy_insertion_use_region_analysis": True,  # fewer copies
    },
}

_log = logging.getLogger(__name__)


def jit(function, **options):
    """`jax.jit` with the compiler options of the backend, which is asked for at the first call.

    (Not before, because importing this must not start the devices.)

    Args:
      function: to be compiled.
      **options: of `jax.jit`.

    Returns:
      The function, compiled when it is called; its `lower` is that of `jax.jit`.
    """

    @functools.cache
    def compiled():
        return jax.jit(function, compiler_options=compiler_options(), **options)

    @functools.wraps(function)
    def call(*args, **kwargs):
        return compiled()(*args, **kwargs)

    call.lower = lambda *args, **kwargs: compiled().lower(*args, **kwargs)
    return call


@functools.cache
def compiler_options():
    """Returns the compiler options of the default backend; none, with a warning, if it has others.

    (They are not a stable interface of XLA.)
    """
    options = COMPILER_OPTIONS.get(jax.default_backend(), {})
    try:
        jax.jit(jnp.negative, compiler_options=options).lower(0.0).compile()
    except Exception as error:  # whatever the compiler says of an option that it does not know
        _log.warning("training may be slow: the compiler does not take %s: %s", options, error)
        return {}
    return options


def value(deferred):
    """Returns what a function without arguments returns; of anything else, itself.

    A deferred value is a `jax.tree_util.Partial`: a function that is a pytree of what it needs.

    Args:
      deferred: array, or function without arguments.
    """
    return deferred() if callable(deferred) else deferred


def compute(deferred):
    """Returns a deferred value; for the backward pass, keeps only what it is made of.

    Args:
      deferred: function without arguments that is a pytree.
    """
    return recompute(value, deferred)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def recompute(function, *operands):
    """function(*operands); its gradient keeps the operands alone and computes the rest again.

    `jax.checkpoint` says the same, but has no effect on a CPU: the compiler drops the barrier that
    it writes, finds the second computation equal to the first, and keeps the results of the first.
    (Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.)

    Args:
      function: pure; it may not close over anything traced.
      *operands: pytrees of floating-point arrays.
    """
    return function(*operands)


def _recompute_forward(function, *operands):
    return function(*operands), operands


def _recompute_backward(function, operands, gradient):
    operands = jax.lax.platform_dependent(
        operands, gradient, cpu=_add_unknown_zero, default=_barrier
    )
    return jax.vjp(function, *operands)[1](gradient)


recompute.defvjp(_recompute_forward, _recompute_backward)


def _barrier(operands, gradient):
    return jax.lax.optimization_barrier((operands, gradient))[0]


def _add_unknown_zero(operands, gradient):
    """Adds a zero that the compiler cannot know, so that nothing looks as if computed before.

    It depends on the gradient, so that nothing is computed again before that is there. The largest
    array of a `Partial` is left alone: that the others differ is enough.
    """
    zero = _unknown_zero(jax.tree.leaves(gradient)[0])

    def add(operand):
        largest = max(x.size for x in jax.tree.leaves(operand)) if callable(operand) else None
        return jax.tree.map(lambda x: x if x.size == largest else x + zero.astype(x.dtype), operand)

    return jax.tree.map(add, operands, is_leaf=lambda x: isinstance(x, Partial))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def unstack(x, axis):
    """Splits an array into slices of length 1 along an axis.

    Their gradients are put together by writing one after the other on a CPU, where a concatenation
    would compute everything that leads to them several times.

    Args:
      x: any array.
      axis: >= 0.

    Returns:
      A list of x.shape[axis] arrays.
    """
    return jax.lax.split(x, (1,) * x.shape[axis], axis)


def _unstack_forward(x, axis):
    return unstack(x, axis), None


def _unstack_backward(axis, _, gradients):
    together = functools.partial(jnp.concatenate, axis=axis)
    written = functools.partial(_write, axis=axis)
    return (jax.lax.platform_dependent(gradients, cpu=written, default=together),)


unstack.defvjp(_unstack_forward, _unstack_backward)


def _write(slices, axis):
    shape = list(slices[0].shape)
    shape[axis] = len(slices)
    whole = jnp.zeros(shape, slices[0].dtype)
    for i, x in enumerate(slices):
        whole = jax.lax.dynamic_update_slice_in_dim(whole, x, i, axis)
    return whole


@jax.custom_vjp
def hold(x):
    """Returns x; a program that differentiates it writes x and its gradient to memory on a CPU.

    XLA's CPU compiler computes again what several of its loops use. In a recurrence, that is
    everything since its start, so that the cost of T steps would grow with the square of T.

    Args:
      x: floating-point array.
    """
    return x


def _hold_forward(x):
    one = 1 + _unknown_zero(x)
    return _written_out(x, one), one


def _hold_backward(one, gradient):
    return (_written_out(gradient, one),)


hold.defvjp(_hold_forward, _hold_backward)


def _written_out(x, one):
    # The compiler takes a division for too expensive to be done twice.
    return jax.lax.platform_dependent(x, one, cpu=jnp.divide, default=lambda x, one: x)


def _unknown_zero(x):
    """Returns a zero that the compiler cannot know: the lesser of 0 and a magnitude."""
    return jnp.minimum(jnp.abs(x[(0,) * x.ndim]), 0) if x.size else jnp.zeros((), x.dtype)
