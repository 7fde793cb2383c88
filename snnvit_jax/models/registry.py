"""The registry of families, `create_model`, and what is known of a model by tracing it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from snnvit_jax.common import values
from snnvit_jax.common.nearest import did_you_mean
from snnvit_jax.models.family import Family, check_family
from snnvit_jax.neurons.recording import spikes

FAMILIES = {}  # name -> Family
_CACHED = 64  # models whose traces are kept


def register(family):
    """Adds a family, so that `create_model` and `--config.model.name` find its models.

    Registering a family again under its own name replaces it.

    Args:
      family: a `Family`.

    Returns:
      The family.

    Raises:
      TypeError: if it is no `Family`.
      ValueError: if no model can be created from it (`family.check_family`), or its module class or
        one of its model names belongs to another family.
    """
    if not isinstance(family, Family):
        raise TypeError(f"register takes a Family, got {family!r}")
    check_family(family)
    for other in FAMILIES.values():
        if other.name == family.name:
            continue
        if taken := sorted(set(other.sizes) & set(family.sizes)):
            raise ValueError(f"{family.name!r}: models {taken} belong to family {other.name!r}")
        if other.module is family.module:  # the family of a model is found by its class
            raise ValueError(
                f"{family.name!r}: the module class {family.module.__name__} is that of family "
                f"{other.name!r}; derive a class of its own from it"
            )
    FAMILIES[family.name] = family
    return family


def list_models():
    """Returns the names of all models that `create_model` knows, family by family."""
    return [name for family in FAMILIES.values() for name in family.sizes]


def family_of(model):
    """Returns the `Family` of a model or of a model's name.

    Args:
      model: from `create_model`, or a name.

    Raises:
      ValueError: for a name, or a module, that no family knows.
    """
    for family in FAMILIES.values():
        if model in family.sizes if isinstance(model, str) else type(model) is family.module:
            return family
    if isinstance(model, str):
        known = list_models()
        raise ValueError(
            f"unknown model name={model!r}{did_you_mean(model, known)}; use one of "
            f"{', '.join(known)}"
        )
    raise ValueError(
        f"{type(model).__name__} is of no known family: {', '.join(FAMILIES)}; see snn.register"
    )


def check_model(model):
    """Raises ValueError for what is no model, but for example the name of one.

    Args:
      model: to be a Linen module, as `create_model` returns them.
    """
    if not isinstance(model, nn.Module):
        name = values.shown(model) if isinstance(model, str) else "NAME"
        raise ValueError(
            f"model={values.shown(model)} must be a model, as snn.create_model({name}, ...) "
            "returns it"
        )


def create_model(name, num_classes=10, image_size=None, time_steps=4, **overrides):
    """Creates a published model, with other sizes if wanted.

    Args:
      name: one of `list_models()`, for example "spikformer_4_384".
      num_classes: number of outputs.
      image_size: side in pixels, or (height, width); None takes the published one.
      time_steps: T, the most time steps a layer can use.
      **overrides: settings of the model's family (the fields of its configuration class), among
        them `embed_dim`, `num_heads`, `depth`, `mlp_ratio`, `remat` (what is computed again in the
        backward pass: "none" or "block"), `dtype` of the computation, and `neuron`, a
        `neurons.Neuron` or a mapping of its kind and settings. None keeps the published value.

    Returns:
      A Linen module: images [B, H, W, channels], normalised, or recordings [B, T, H, W, channels]
      -> logits [B, num_classes].

    Raises:
      ValueError: for an unknown name or override, or a value that does not fit, each by name.
    """
    return family_of(name).create(name, num_classes, image_size, time_steps, overrides)


def describe(model):
    """Returns what a model is in words: its class, blocks and channels, as far as it has them.

    Args:
      model: from `create_model`; settings called `depth` and `embed_dim` say the latter two, of
        several stages one number each.
    """
    words = [type(model).__name__]
    for setting, unit in (("depth", "blocks"), ("embed_dim", "channels")):
        value = getattr(model.config, setting, None)
        if value is not None:
            numbers = value if isinstance(value, tuple) else (value,)
            unit = unit[:-1] if numbers == (1,) else unit
            words.append(f"{'+'.join(map(str, numbers))} {unit}")
    return " ".join(words[:1]) + (f" with {' and '.join(words[1:])}" if words[1:] else "")


def variable_shapes(model, image_shape):
    """Returns {"params", "batch_stats"} of a model as shapes, without computing anything.

    Args:
      model: from `create_model`.
      image_shape: (H, W, C) of one image, or (T, H, W, C) of a recording.

    Raises:
      ValueError: for what is no model.
    """
    check_model(model)
    shapes = _traced_shapes(model, tuple(image_shape), jax.config.jax_enable_x64)
    return jax.tree.map(lambda leaf: leaf, shapes)  # a copy: the caller may change it


@functools.lru_cache(_CACHED)  # tracing takes as long as evaluating a small model
def _traced_shapes(model, image_shape, x64):
    del x64  # types may depend on it
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def layer_names(model, channels=3):
    """Returns the names of a model's spiking layers in forward order, without computing anything.

    Args:
      model: from `create_model`.
      channels: of the images.

    Raises:
      ValueError: for what is no model.
    """
    check_model(model)
    return list(_traced_layer_names(model, channels))


@functools.lru_cache(_CACHED)
def _traced_layer_names(model, channels):
    image_shape = (*model.config.image_size, channels)
    names = []

    def trace(variables, images):
        names.extend(spikes(model.apply(variables, images, mutable=["spikes"])[1]))

    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    jax.eval_shape(trace, variable_shapes(model, image_shape), images)
    return tuple(names)
