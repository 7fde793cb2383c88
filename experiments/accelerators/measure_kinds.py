"""How measure.py measures a row.

Every time is the median of several repetitions, each of so many calls that it lasts a fifth of a
second, from one `jax.block_until_ready` to the next; the calls before, which compile and warm up,
are not among them.
"""

import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import step

import snnvit_jax as snn
from snnvit_jax import training
from snnvit_jax.time_steps.schedule import TimeStepSchedule
from snnvit_jax.xla import backends, kernels
from snnvit_jax.xla.traced import traced_flops

# Largest distance, relative to the length, that counts as agreement. Kernels compute in float32
# what the compiler rounds to bfloat16 in between, and a rounding turns spikes.
TOLERANCE = {"float32": 0.05, "bfloat16": 0.4}
# Of the compiler, one after the other until it succeeds.
_OPTIONS = ({}, {"xla_gpu_enable_triton_gemm": False})
_QUICK_OPTIONS = ({"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True},)


def device():
    """Returns what this process computes on, and with what."""
    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "devices": [str(one) for one in devices],
        "jax": jax.__version__,
        "snnvit_jax": snn.__version__,
    }


def measured(row):
    """Returns what was measured of a row, a dictionary; with "error" if it failed on the way.

    Args:
      row: a `Row`.
    """
    found, start, before = {}, time.perf_counter(), _peak_bytes()
    try:
        KINDS[row.kind](row, found)
    except Exception as error:  # of the compiler, of the device: the other rows go on
        found["error"] = described(error)
    peak = _peak_bytes()
    # The device knows the highest peak of this process alone: it is this row's if it rose.
    found["device_peak_bytes"] = peak if peak and peak > before else None
    return found | {"whole_seconds": time.perf_counter() - start}


def described(error):
    """Returns an error as one line of at most 300 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _peak_bytes():
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


# ---------------------------------------------------------------- kinds of rows


def training_step(row, found):
    """Spikformer's recipe, on one batch again and again."""
    sizes = {"time_steps": row.time_steps, "dtype": jnp.dtype(row.dtype), **dict(row.overrides)}
    form = (row.model, row.image_size, row.batch_size)
    procedure = step.procedure(*form, kernels=row.kernels, **sizes)
    model = procedure.model
    create = functools.partial(training.state_from_variables, procedure)
    state, batch = jax.jit(create)(_variables(row, model)), _batch(row)
    lowered = functools.partial(training.train_step.lower, state, batch, procedure=procedure)
    program = _compiled(row, lowered, found)
    state, metrics = _timed(row, lambda last: program(last[0], batch), (state,), found)
    found["loss"] = float(metrics["loss"][0] / metrics["loss"][1])
    found["steps_taken_back"] = int(state.skipped)
    # Of a forward pass once, backward twice: the convention of model FLOPs utilisation.
    found["flops"] = 3 * _forward_flops(row, model, batch["image"])


def evaluation(row, found):
    """The masked model with all of its time steps."""
    model, images = _model(row), _batch(row)["image"]
    variables = jax.device_put(_variables(row, model))

    def logits(variables, images):
        with kernels.kernels(row.kernels):
            return model.apply(variables, images)

    program = _compiled(row, lambda: backends.jit(logits).lower(variables, images), found)
    _timed(row, lambda _: program(variables, images), None, found)
    found["flops"] = _forward_flops(row, model, images)


def deployed(row, found):
    """The deployed model: a third of its layers keep all time steps, the others one."""
    model, images = _model(row), _batch(row)["image"]
    schedule = learned_like(snn.layer_names(model), model.config.time_steps)
    program = snn.deploy(model, _variables(row, model), schedule)
    found["average_time_steps"] = schedule.average
    start = time.perf_counter()
    jax.block_until_ready(program(images))
    found["compile_seconds"] = time.perf_counter() - start
    _timed(row, lambda _: program(images), None, found)
    found["flops"] = traced_flops(jax.jit(program).trace(images))


def learned_like(names, time_steps):
    """Returns a schedule of half of the steps, as networks learn them: the first layers keep most.

    Args:
      names: of the layers, in forward order.
      time_steps: T; of another than 4, more or less than half is kept.
    """
    first = round(len(names) / 3)
    one = [int(t == 1) for t in range(time_steps)]
    return TimeStepSchedule(
        {name: [1] * time_steps if i < first else one for i, name in enumerate(names)}
    )


def agreement(row, found):
    """How far logits and gradient with kernels are from those without."""
    model, images = _model(row), _batch(row)["image"]
    variables = _variables(row, model)
    weights = jax.random.normal(jax.random.key(1), (row.batch_size, model.config.num_classes))

    def lowered(mode):
        def total(params):
            logits, _ = model.apply(
                variables | {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            return jnp.vdot(logits, weights), logits

        with kernels.kernels(mode):  # around the gradient too, as in a training step
            return jax.jit(jax.grad(total, has_aux=True)).lower(variables["params"])

    with jax.default_matmul_precision("highest"):
        runs = [
            _compiled(row, functools.partial(lowered, mode), found)(variables["params"])
            for mode in (None, row.kernels)
        ]
    found |= compared(*runs, TOLERANCE[row.dtype])


def compared(one, other, tolerance):
    """Returns how far two programs are apart, and whether that counts as agreement.

    Args:
      one: (gradient, logits) without kernels.
      other: the same with them.
      tolerance: largest distance of either; what is not finite does not agree.
    """
    found = {
        "gradient_apart": distance(other[0], one[0]),
        "logits_apart": distance(other[1], one[1]),
    }
    agrees = all(apart <= tolerance for apart in found.values())
    return found | {"tolerance": tolerance, "agrees": agrees}


def distance(one, other):
    """Returns |one - other| / |other| of pytrees, each taken as one vector; NaN if one has any."""
    one, other = (
        np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])
        for tree in (one, other)
    )
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def product(row, found):
    """A product of square matrices of random numbers."""
    x, y = jax.random.normal(jax.random.key(0), (2, row.size, row.size), row.dtype)
    program = _compiled(row, lambda: jax.jit(jnp.matmul).lower(x, y), found)
    _timed(row, lambda _: program(x, y), None, found)
    found["flops"] = 2 * row.size**3


def copy(row, found):
    """An array read, and one written."""
    x = jnp.ones(row.size * 10**6 // jnp.dtype(row.dtype).itemsize, row.dtype)
    program = _compiled(row, lambda: jax.jit(jnp.negative).lower(x), found)
    _timed(row, lambda _: program(x), None, found)
    found["bytes"] = 2 * x.nbytes


KINDS = {
    "training": training_step,
    "evaluation": evaluation,
    "deployed": deployed,
    "agreement": agreement,
    "product": product,
    "copy": copy,
}


# ---------------------------------------------------------------- what they share


def _model(row):
    classes = 1000 if row.image_size >= 128 else 10
    sizes = dict(row.overrides) | {"dtype": jnp.dtype(row.dtype)}
    return snn.create_model(row.model, classes, row.image_size, row.time_steps, **sizes)


def _variables(row, model):
    return _initial(model, row.quick)


@functools.lru_cache(1)  # the rows of one model follow each other
def _initial(model, quick):
    """Initial variables, in the host's memory."""
    init = jax.jit(model.init, compiler_options=_QUICK_OPTIONS[0] if quick else {})
    key = jax.random.key(0, impl="rbg")  # whose programs take less time to compile
    return jax.device_get(init(key, jnp.zeros((1, *model.config.image_size, 3))))


def _batch(row):
    shape = (row.batch_size, row.image_size, row.image_size, 3)
    images = jax.random.normal(jax.random.key(2), shape)
    return {"image": images, "label": jnp.arange(row.batch_size, dtype=jnp.int32) % 10}


def _forward_flops(row, model, images):
    return traced_flops(jax.jit(model.apply).trace(_variables(row, model), images))


def _compiled(row, lower, found):
    """Returns the compiled program; adds its seconds, memory and refused options to `found`."""
    start, lowered = time.perf_counter(), lower()
    *tried, last = _QUICK_OPTIONS if row.quick else _OPTIONS
    program = None
    for options in tried:
        try:
            program = lowered.compile(compiler_options=options)
            break
        except jax.errors.JaxRuntimeError as error:
            found["retried"] = {"options": last, "because": described(error)}
    program = program or lowered.compile(compiler_options=last)
    seconds = time.perf_counter() - start
    found["compile_seconds"] = found.get("compile_seconds", 0) + seconds
    found["program_bytes"] = _reserved(program.memory_analysis())
    return program


def _reserved(memory):
    if memory is None:
        return None
    sizes = [getattr(memory, f"{kind}_size_in_bytes") for kind in ("argument", "output", "temp")]
    return sum(sizes) - memory.alias_size_in_bytes


def _timed(row, call, last, found):
    """Returns the result of the last of many calls; adds their times to `found`.

    Args:
      row: a `Row`.
      call: function of the result before.
      last: what the first call is given.
      found: dictionary.
    """
    last = jax.block_until_ready(call(last))
    start = time.perf_counter()
    last = jax.block_until_ready(call(last))
    once = time.perf_counter() - start
    calls = 1 if row.quick else min(max(round(0.2 / once), 1), 200)
    repetitions = 2 if row.quick else min(max(round(2 / (once * calls)), 5), 10)
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        for _ in range(calls):
            last = call(last)
        jax.block_until_ready(last)
        seconds.append((time.perf_counter() - start) / calls)
    found |= {"seconds": statistics.median(seconds), "repetitions": seconds, "calls": calls}
    return last
