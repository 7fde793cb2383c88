"""One kernel for all that happens to a current over time: forward once, backward once.

XLA's compiler for GPUs writes several arrays for each time step of a recurrence. A kernel reads a
block of the current at all steps, computes every step in registers, in float32, and writes what
comes out; backward the same, with the sums for the parameters. What is computed is any pure
function of single values and of numbers per channel; its gradient is derived, not written by hand.

Written with Pallas, compiled by Triton. It knows one device only: several would have to gather. On
a TPU nothing is written by hand: there it is enough that the steps are kept apart for longer.
"""

import contextlib
import contextvars
import functools
import math

import jax
import jax.numpy as jnp

MODES = ("gpu", "tpu", "interpret")
ON_ONE_DEVICE = ("gpu", "interpret")

_BLOCK = 2048  # values of one step: as many as the registers of a multiprocessor hold many times
_CHANNELS = 128  # of a block at most
_MODE = jax.make_user_context(None)  # a part of what `jax.jit` knows its programs by
_INSIDE = contextvars.ContextVar("inside", default=False)


@contextlib.contextmanager
def kernels(mode):
    """Traces neurons as an accelerator takes them best within this context.

    Args:
      mode: "gpu", each layer a kernel; "interpret", the same without a GPU, slowly; "tpu", without
        kernels, but each time step is masked and pooled before the steps are put together, and
        pooled in one window; None as without a context.
    """
    if mode is not None and mode not in MODES:
        raise ValueError(f"kernels={mode!r} must be one of {', '.join(MODES)}, or None")
    with _MODE(mode):
        yield


def steps_apart():
    """Returns whether time steps are to be kept apart until they are masked and pooled."""
    return _MODE.value == "tpu"


def inside():
    """Returns whether a kernel is being traced."""
    return _INSIDE.get()


def wanted(x):
    """Returns whether an array is to be computed with by a kernel, and can be.

    Args:
      x: array or shape [B, K, ..., C].
    """
    fits = len(x.shape) > 2 and _power_of_two(x.shape[-1]) >= 16
    return _MODE.value in ON_ONE_DEVICE and fits


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def over_steps(function, time_steps, x, small):
    """Returns function(list of K steps, small) for every value, [B, T, ..., C].

    Args:
      function: pure and hashable, (K arrays [n, c], small) -> T arrays [n, c]; a result depends on
        the values of its own place and the numbers of its own channel.
      time_steps: T.
      x: [B, K, ..., C].
      small: list of arrays [C], of which the function is given [c], and of scalars.
    """
    blocks = _Blocks(x, small)
    shape = (x.shape[0], time_steps, *blocks.flat.shape[2:])

    def kernel(x_ref, *refs):
        *small_refs, out = refs
        ys = _written_out(function, _steps(x_ref), blocks.numbers(small_refs))
        for t, y in enumerate(ys):
            out[0, t] = y.astype(out.dtype)

    result = blocks.call(
        kernel, blocks.operands, blocks.specs(), blocks.spec(time_steps), shape, x.dtype
    )
    return result.reshape(x.shape[0], time_steps, *x.shape[2:])


def _forward(function, time_steps, x, small):
    return over_steps(function, time_steps, x, small), (x, small)


def _backward(function, time_steps, residuals, gradient):
    x, small = residuals
    blocks = _Blocks(x, small)
    operands = blocks.operands

    def pull_back(xs, numbers, gradients):
        return jax.vjp(function, xs, numbers)[1](gradients)

    def kernel(x_ref, *refs):
        small_refs, (g, dx, *sums) = refs[: len(operands) - 1], refs[len(operands) - 1 :]
        numbers = blocks.numbers(small_refs)
        of_steps, of_small = _written_out(pull_back, _steps(x_ref), numbers, _steps(g))
        for t, value in enumerate(of_steps):
            dx[0, t] = value.astype(dx.dtype)
        for out, values in zip(sums, _by_kind(of_small), strict=True):
            for i, value in enumerate(values):
                out[0, 0, i] = jnp.broadcast_to(value, out.shape[-1:])

    flat = gradient.reshape(*gradient.shape[:2], *blocks.flat.shape[2:])
    specs, shapes = zip(*map(blocks.sums, _by_kind(small)), strict=True)
    dx, *partial = blocks.call(
        kernel,
        [*operands, flat],
        [*blocks.specs(), blocks.spec(time_steps)],
        [blocks.spec(x.shape[1]), *specs],
        [blocks.flat.shape, *shapes],
        [x.dtype, *[jnp.float32] * len(shapes)],
    )
    return dx.reshape(x.shape), _totals(partial, small)


def _kinds(numbers):
    """Those of each channel, and scalars."""
    return [n for n in numbers if n.ndim], [n for n in numbers if not n.ndim]


def _by_kind(numbers):
    """The kinds that there are: each has its sums in one array."""
    return [kind for kind in _kinds(numbers) if kind]


def _totals(partial, small):
    """Returns the gradients of the numbers, from what each program adds to them."""
    axes = [(0, 1) if kind[0].ndim else (0, 1, 3) for kind in _by_kind(small)]
    sums = [iter(jnp.sum(array, axis)) for array, axis in zip(partial, axes, strict=True)]
    return [next(sums[0 if n.ndim else -1]).astype(n.dtype) for n in small]


over_steps.defvjp(_forward, _backward)


class _Blocks:
    """How a current [B, K, n, C] is divided among programs: each has an image, rows, channels."""

    def __init__(self, x, small):
        B, K, *space, C = x.shape
        self.flat, self.small = x.reshape(B, K, math.prod(space), C), small
        self.columns = min(_power_of_two(C), _CHANNELS)
        self.rows = min(_power_of_two(math.prod(space)), _BLOCK // self.columns)
        self.grid = (B, math.prod(space) // self.rows, C // self.columns)
        self._channels, self._scalars = _kinds(small)

    @property
    def operands(self):
        """The current, the numbers of each channel, and all scalars as one array."""
        scalars = [jnp.stack(self._scalars)] if self._scalars else []
        return [self.flat, *self._channels, *scalars]

    def numbers(self, refs):
        """The numbers in their order, of the references to `operands` without the current."""
        channels = iter(ref[...].astype(jnp.float32) for ref in refs[: len(self._channels)])
        scalars = iter(refs[-1][i].astype(jnp.float32) for i in range(len(self._scalars)))
        return [next(channels if number.ndim else scalars) for number in self.small]

    def spec(self, steps):
        """Of an array [B, steps, n, C]."""
        return _pallas().BlockSpec(
            (1, steps, self.rows, self.columns), lambda b, n, c: (b, 0, n, c)
        )

    def specs(self):
        """Of the current and the numbers."""
        of_channels = _pallas().BlockSpec((self.columns,), lambda b, n, c: (c,))
        of_all = _pallas().BlockSpec((len(self._scalars),), lambda b, n, c: (0,))
        numbers = [of_channels] * len(self._channels) + [of_all] * bool(self._scalars)
        return [self.spec(self.flat.shape[1]), *numbers]

    def sums(self, numbers):
        """Of what each program adds to the gradients of one kind, and the shape of all of it."""
        images, rows, columns = self.grid
        width, whole = (self.columns, self.flat.shape[-1]) if numbers[0].ndim else (1, columns)
        block, shape = (1, 1, len(numbers), width), (images, rows, len(numbers), whole)
        return _pallas().BlockSpec(block, lambda b, n, c: (b, n, 0, c)), shape

    def call(self, kernel, operands, in_specs, out_specs, shapes, dtypes):
        """Runs a kernel over the grid."""
        out_shape = jax.tree.map(
            jax.ShapeDtypeStruct, shapes, dtypes, is_leaf=lambda x: isinstance(x, tuple)
        )
        return _pallas().pallas_call(
            kernel,
            grid=self.grid,
            in_specs=in_specs,
            out_specs=out_specs,
            out_shape=out_shape,
            **_compilation(),
        )(*operands)


def _written_out(function, *arguments):
    """function(*arguments) without calls inside.

    Triton's lowering refuses those with a gradient of their own, though none is taken any more.
    """
    token = _INSIDE.set(True)
    try:
        program, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    finally:
        _INSIDE.reset(token)
    results = _evaluate(program, jax.tree.leaves(arguments))
    return jax.tree.unflatten(jax.tree.structure(shapes), results)


def _evaluate(program, arguments):
    known = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
    known |= zip(program.jaxpr.invars, arguments, strict=True)
    for equation in program.jaxpr.eqns:
        operands = [v.val if hasattr(v, "val") else known[v] for v in equation.invars]
        inner = equation.params.get("call_jaxpr", equation.params.get("jaxpr"))
        if inner is not None:
            results = _evaluate(inner, operands)
        else:
            results = equation.primitive.bind(*operands, **equation.params)
            results = results if equation.primitive.multiple_results else [results]
        known |= zip(equation.outvars, results, strict=True)
    return [v.val if hasattr(v, "val") else known[v] for v in program.jaxpr.outvars]


def _steps(ref):
    """The steps of a block, in float32."""
    return [ref[0, t].astype(jnp.float32) for t in range(ref.shape[1])]


def _pallas():
    from jax.experimental import pallas  # takes a while, and only kernels need it

    return pallas


def _compilation():
    if _MODE.value != "gpu":
        return {"interpret": True}
    from jax.experimental.pallas import triton

    return {"compiler_params": triton.CompilerParams(num_warps=8)}


def _power_of_two(number):
    """The largest power of two that divides a number."""
    return number & -number
