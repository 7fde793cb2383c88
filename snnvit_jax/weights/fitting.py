"""Variables of one model for another of the same layers: other classes, time steps, neurons."""

import warnings

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from snnvit_jax.common.variables import check_floating
from snnvit_jax.time_steps import masks
from snnvit_jax.time_steps.schedule import with_time_steps

_SHOWN = 4  # names in an error
_ADVICE = "set config.model as it was when they were trained (name, embed_dim, depth, ...)"


def head_of(params, name):
    """Returns the parameters of the linear map that gives a model's logits.

    Args:
      params: of the model.
      name: of that map, `Family.head`.

    Raises:
      ValueError: if it has another name.
    """
    if name not in params:
        raise ValueError(
            f"there is no {name!r} among the model's parameters ({', '.join(sorted(params))}), "
            "which the record of its family names as the classifier: give Family(head=NAME)"
        )
    return params[name]


def fit(variables, initial, head):
    """Returns variables for a model from those of one that may be of another task.

    A head for other classes is replaced by the initial one. Scores for another number of time steps
    are resized (`schedule.with_time_steps`), and start with every step active if there are none.
    Constants that neurons learn ("plif" its time constant) start at their initial values if there
    are none. A warning says if scores were resized or constants start anew.

    Args:
      variables: {"params", "batch_stats"} of a model.
      initial: the same of the model wanted.
      head: name of the head of both, `Family.head`.

    Returns:
      {"params", "batch_stats"} in the types of `initial`.

    Raises:
      ValueError: naming the first variables that are missing, unexpected or of another shape and
        how many there are, or one that does not hold floating-point numbers; if there is no head of
        that name.
    """
    head_of(initial["params"], head)
    given, wanted = (
        traverse_util.flatten_dict(dict(v), sep="/")
        for v in (_resized(variables, initial), initial)
    )
    given |= _replaced(given, wanted, head)
    missing, unexpected = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or unexpected:
        raise ValueError(
            f"the weights are for another model: missing={_first(missing)}, "
            f"unexpected={_first(unexpected)}; {_ADVICE}"
        )
    wrong = [
        f"{name} is {given[name].shape}, not {leaf.shape}"
        for name, leaf in wanted.items()
        if given[name].shape != leaf.shape
    ]
    if wrong:
        raise ValueError(f"weights of another shape: {_first(wrong)}; {_ADVICE}")
    check_floating({name: given[name] for name in wanted})
    return traverse_util.unflatten_dict(
        {name: jnp.asarray(given[name], leaf.dtype) for name, leaf in wanted.items()}, sep="/"
    )


def _resized(variables, initial):
    """The variables with scores for as many time steps as the initial ones have; says so."""
    old, new = _score_shapes(variables), _score_shapes(initial)
    if old == new or any(len(shapes) != 1 or len(min(shapes)) != 1 for shapes in (old, new)):
        return variables  # as they are, without scores, or of shapes that `fit` refuses by name
    ((before,),), ((after,),) = old, new
    kept = f"the first {after} are kept" if after < before else "those added start active"
    warnings.warn(f"the weights have {before} time steps, this model {after}: {kept}", stacklevel=3)
    return with_time_steps(variables, after)


def _score_shapes(variables):
    flat = traverse_util.flatten_dict(dict(variables))
    return {np.shape(leaf) for path, leaf in flat.items() if path[-1] == masks.SCORE}


def _replaced(given, wanted, head):
    """{name: initial value} of what starts anew: another head, scores and constants not given."""
    new = {
        name: leaf
        for name, leaf in wanted.items()
        if (name.startswith(f"params/{head}/") and np.shape(given.get(name)) != leaf.shape)
        or (name.endswith("/" + masks.SCORE) and name not in given)
    }
    constants = ["/".join(path) for path in learned_constants(name.split("/") for name in wanted)]
    if constants and not set(constants) & given.keys():
        warn_of_constants(constants)
        new |= {name: wanted[name] for name in constants}
    return new


def _first(names):
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{names[:_SHOWN]}{more}"


def learned_constants(paths):
    """Returns those paths that are constants which neurons learn, in the same order.

    Whatever a layer owns beside its scores belongs to its neurons.

    Args:
      paths: of all of a model's variables, each a sequence of names.
    """
    paths = [tuple(path) for path in paths]
    layers = {path[:-1] for path in paths if path[-1] == masks.SCORE}
    return [path for path in paths if path[:-1] in layers and path[-1] != masks.SCORE]


def warn_of_constants(names):
    """Warns that weights hold none of the constants that the model's neurons learn.

    Args:
      names: of those constants, at least one.
    """
    warnings.warn(
        f"the weights hold none of the constants that neurons learn ({names[0]!r} and "
        f"{len(names) - 1} others): they start at the model's own values",
        stacklevel=4,
    )
