"""Parameters of Linen modules."""

import jax.numpy as jnp
from flax import errors


def parameter(module, name, init, shape):
    """Returns a module's parameter of that name, float32: the one that is given, or a new one.

    `module.param` traces the initialiser of a given parameter only to compare shapes, which is a
    third of the time that it takes to trace a model.

    Args:
      module: a bound Linen module.
      name: of the parameter.
      init: function of (key, shape, dtype).
      shape: of the parameter.

    Raises:
      flax.errors.ScopeParamShapeError: if the parameter that is given has another shape.
      flax.errors.ScopeParamNotFoundError: if none is given where none can be made.
    """
    if not module.has_variable("params", name):
        return module.param(name, init, shape, jnp.float32)
    value = module.get_variable("params", name)
    if jnp.shape(value) != tuple(shape):
        path = "/" + "/".join(module.path)
        raise errors.ScopeParamShapeError(name, path, jnp.shape(value), tuple(shape))
    return value
