"""`jit` with the options that a backend's compiler needs (measured: experiments/benchmarks)."""

import contextlib
import functools
import logging

import jax
import jax.numpy as jnp

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

    inner = jax.jit(function, **options)

    @functools.wraps(function)
    def call(*args, **kwargs):
        if _inside_a_program(args, kwargs):  # whose options count
            return inner(*args, **kwargs)
        return compiled()(*args, **kwargs)

    call.lower = lambda *args, **kwargs: compiled().lower(*args, **kwargs)
    return call


@contextlib.contextmanager
def without_folders():
    """Leaves the folders of source files out of the programs lowered in this context.

    (A program names, for error messages, the files that it comes from: whoever gets it need not
    know where they lie, and the same program is then the same bytes wherever it was made.)
    """
    key = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, key)
    jax.config.update(key, ".*/")
    try:
        yield
    finally:
        jax.config.update(key, before)


def _inside_a_program(args, kwargs):
    """Whether a call is part of a function that JAX is tracing."""
    leaves = [*jax.tree.leaves((args, kwargs)), jnp.zeros(())]
    return any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


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
