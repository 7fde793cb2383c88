"""Where a step's numbers are not finite, in every family: the first layer of its forward pass."""

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from family_forms import FAMILY_FORMS, FORMS

import snnvit_jax as snn
from snnvit_jax.deployment import planning
from snnvit_jax.models import variable_shapes
from snnvit_jax.training import nonfinite


def called(model, shapes, image_shape):
    """Names of all modules in the order in which their calls end."""
    names = []

    def note(call, args, kwargs, context):
        result = call(*args, **kwargs)
        names.append("/".join(context.module.path))
        return result

    with nn.intercept_methods(note):
        jax.eval_shape(model.apply, shapes, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    return names


@pytest.mark.parametrize("form", FAMILY_FORMS)
def test_the_first_layer_of_the_forward_pass_is_named(form):
    name, sizes = FORMS[form]
    model = snn.create_model(name, 3, time_steps=2, **sizes)
    image_shape = (*model.config.image_size, 3)
    shapes = variable_shapes(model, image_shape)
    layers, order = planning.forward_order(model, image_shape), called(model, shapes, image_shape)
    paths, _ = jax.tree_util.tree_flatten_with_path((shapes["params"], shapes["batch_stats"]))
    owners = [(path[0].idx, "/".join(k.key for k in path[1:-1]), path[-1].key) for path, _ in paths]

    def described(flagged):
        state = types.SimpleNamespace(**shapes)
        return nonfinite.describe([flagged(*owner) for owner in owners], state, layers)

    norms = [layer for layer in order if (1, layer, "mean") in owners]
    for i in range(len(norms)):
        where = described(lambda which, layer, _, i=i: not which or layer in norms[i:])
        assert f"of {norms[i]} and" in where
    assert f"of {norms[0]} and" in described(lambda *_: True)
    learned = [layer for layer in order if any(owner[:2] == (0, layer) for owner in owners)]
    for i in range(len(learned)):
        where = described(lambda which, layer, _, i=i: not which and layer in learned[: i + 1])
        assert f"from {learned[i]} backwards" in where
    assert f"from {learned[-1]} backwards" in described(lambda which, *_: not which)
    assert set(learned) == {layer for which, layer, _ in owners if not which}
