"""From a traced program to a graph, equation by equation."""

import jax
import numpy as np
from jax.extend import core

from snnvit_jax.deployment.onnx import elementwise, products, shapes
from snnvit_jax.deployment.onnx.values import Constant, common_shape, is_known

OPERATIONS = {**elementwise.OPERATIONS, **shapes.OPERATIONS, **products.OPERATIONS}
# What a program does besides computing: its outputs are its inputs.
_NOTHING = ("stop_gradient", "copy", "copy_p", "optimization_barrier")
# Where a primitive that calls another program keeps it.
_PROGRAMS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def translate(graph, program, inputs):
    """Adds the equations of a program to a graph.

    What depends on constants alone is computed now.

    Args:
      graph: a `Graph`.
      program: a closed jaxpr.
      inputs: its arguments, `Constant`s and `Tensor`s.

    Returns:
      A list of values, its results.

    Raises:
      NotImplementedError: naming a primitive that has no counterpart here.
    """
    jaxpr = program.jaxpr
    known = dict(zip(jaxpr.invars, inputs, strict=True))
    constants = zip(jaxpr.constvars, program.consts, strict=True)
    known |= {variable: Constant(np.asarray(x)) for variable, x in constants}

    def read(atom):
        if isinstance(atom, core.Literal):
            return Constant(np.asarray(atom.val, atom.aval.dtype))
        return known[atom]

    for equation in _needed(jaxpr):
        results = _translate_one(graph, equation, [read(atom) for atom in equation.invars])
        known |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _needed(jaxpr):
    """The equations that a result depends on, in order."""
    wanted = {atom for atom in jaxpr.outvars if not isinstance(atom, core.Literal)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if wanted.intersection(equation.outvars):
            kept.append(equation)
            wanted |= {atom for atom in equation.invars if not isinstance(atom, core.Literal)}
    return reversed(kept)


def _translate_one(graph, equation, inputs):
    name = equation.primitive.name
    if name in _NOTHING:
        return inputs
    if name == "platform_index":
        return [Constant(np.int32(_index_of_default(equation.params["platforms"])))]
    program = _called(equation, inputs)
    if program is not None:
        return translate(graph, program, inputs[name == "cond" :])
    if name not in OPERATIONS:
        raise NotImplementedError(
            f"the primitive {name!r} has no counterpart in ONNX here; known are "
            f"{', '.join(sorted(OPERATIONS))}"
        )
    if name != "broadcast_in_dim" and all(isinstance(x, Constant) for x in inputs):
        folded = _computed(equation, inputs)
        if folded is not None:
            return folded
    return [OPERATIONS[name](graph, equation, inputs)]


def _called(equation, inputs):
    """The program that an equation calls, or None; of several, that of an index that is known."""
    params = equation.params
    if equation.primitive.name == "cond":
        if not isinstance(inputs[0], Constant):
            raise NotImplementedError("the primitive 'cond' on what is computed has no counterpart")
        found = params["branches"][int(inputs[0].array)]
    else:
        found = next((params[key] for key in _PROGRAMS if key in params), None)
    if found is None or isinstance(found, core.ClosedJaxpr):
        return found
    return core.ClosedJaxpr(found, ())


def _index_of_default(platforms):
    """Which of several programs is for any platform; the first one if none is."""
    return next((i for i, names in enumerate(platforms) if names is None), 0)


def _computed(equation, inputs):
    """The results of an equation of constants, or None if they depend on the batch size."""
    if equation.primitive.name in elementwise.OPERATIONS:
        shape = common_shape(*(x.shape for x in inputs))
        arrays = [np.broadcast_to(x.array, shape) for x in inputs]
    elif all(is_known(v.aval.shape) for v in (*equation.invars, *equation.outvars)):
        arrays = [
            np.broadcast_to(x.array, v.aval.shape)
            for x, v in zip(inputs, equation.invars, strict=True)
        ]
    else:
        return None
    with jax.ensure_compile_time_eval():
        found = equation.primitive.bind(*map(jax.numpy.asarray, arrays), **equation.params)
    results = found if equation.primitive.multiple_results else [found]
    return [Constant(np.asarray(x)) for x in results]
