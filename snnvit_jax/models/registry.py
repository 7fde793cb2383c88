"""The registry of published models and `create_model`."""

import collections.abc
import dataclasses
import functools

import jax
import jax.numpy as jnp

from snnvit_jax.models.spikformer import CIFAR_POOL, IMAGENET_FORM, Spikformer, SpikformerConfig
from snnvit_jax.neurons import NeuronConfig
from snnvit_jax.neurons.recording import spikes

OVERRIDES = (
    *("embed_dim", "num_heads", "depth", "mlp_ratio", "pool", "neuron", "remat", "drop_path"),
    "dtype",
)


def _spikformer_cifar(depth, embed_dim, num_heads):
    return {"depth": depth, "embed_dim": embed_dim, "num_heads": num_heads, "image_size": 32}


def _spikformer_imagenet(depth, embed_dim, num_heads):
    imagenet = {"image_size": 224, "pool": (True,) * 4, "form": IMAGENET_FORM}
    return {"depth": depth, "embed_dim": embed_dim, "num_heads": num_heads, **imagenet}


# name -> (module, its configuration class, published settings)
REGISTRY = {
    name: (Spikformer, SpikformerConfig, settings)
    for name, settings in {
        # The paper leaves the heads of 4-256 open; 8 gives them the size 32 of the others.
        "spikformer_4_256": _spikformer_cifar(4, 256, 8),
        "spikformer_2_384": _spikformer_cifar(2, 384, 12),
        "spikformer_4_384": _spikformer_cifar(4, 384, 12),
        "spikformer_8_384_imagenet": _spikformer_imagenet(8, 384, 8),
        "spikformer_8_512_imagenet": _spikformer_imagenet(8, 512, 8),
        "spikformer_10_512_imagenet": _spikformer_imagenet(10, 512, 8),
        "spikformer_8_768_imagenet": _spikformer_imagenet(8, 768, 12),
    }.items()
}


def create_model(name, num_classes=10, image_size=None, time_steps=4, **overrides):
    """Creates a published model, with other sizes if wanted.

    Args:
      name: a key of `REGISTRY`, for example "spikformer_4_384".
      num_classes: number of outputs.
      image_size: side in pixels, or (height, width); None takes the published one.
      time_steps: T, the most time steps a layer can use.
      **overrides: `embed_dim`, `num_heads`, `depth`, `mlp_ratio`, `pool` (for each of the four
        stages of the patch embedding, whether it halves the image), `drop_path` (stochastic depth
        in training), `remat` (what is computed again in the backward pass: "none" or "block"),
        `dtype` of the computation, and `neuron`, a `NeuronConfig` or a mapping of
        its fields. None keeps the published value.

    Returns:
      A Linen module: images [B, H, W, channels], normalised -> logits [B, num_classes].

    Raises:
      ValueError: for an unknown name or override, or a value that does not fit, each by name.
    """
    if name not in REGISTRY:
        raise ValueError(f"unknown model {name=}; use one of {', '.join(REGISTRY)}")
    unknown = sorted(set(overrides) - set(OVERRIDES))
    if unknown:
        raise ValueError(f"unknown model settings {unknown}; use some of {', '.join(OVERRIDES)}")
    module, config_class, published = REGISTRY[name]
    settings = published | {key: value for key, value in overrides.items() if value is not None}
    settings["image_size"] = _as_pair(settings["image_size"] if image_size is None else image_size)
    settings["pool"] = tuple(settings.get("pool", CIFAR_POOL))
    settings["neuron"] = _as_neuron(settings.get("neuron", NeuronConfig()))
    return module(config_class(num_classes=num_classes, time_steps=time_steps, **settings))


def variable_shapes(model, image_shape):
    """Returns {"params", "batch_stats"} of a model as shapes, without computing anything.

    Args:
      model: from `create_model`.
      image_shape: (H, W, C) of one image.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def layer_names(model, channels=3):
    """Returns the names of a model's LIF layers in forward order, without computing anything.

    Args:
      model: from `create_model`.
      channels: of the images.
    """
    return list(_traced_layer_names(model, channels))


@functools.cache  # tracing takes as long as evaluating a small model
def _traced_layer_names(model, channels):
    images = jnp.zeros((1, *model.config.image_size, channels))
    names = []

    def trace():
        variables = model.init(jax.random.key(0), images)
        names.extend(spikes(model.apply(variables, images, mutable=["spikes"])[1]))

    jax.eval_shape(trace)
    return tuple(names)


def _as_pair(image_size):
    return tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size, image_size)


def _as_neuron(neuron):
    if isinstance(neuron, NeuronConfig):
        return neuron
    known = [field.name for field in dataclasses.fields(NeuronConfig)]
    if not isinstance(neuron, collections.abc.Mapping):
        raise ValueError(
            f"{neuron=} must be a NeuronConfig or a mapping of its fields: {', '.join(known)}"
        )
    unknown = sorted(set(neuron) - set(known))
    if unknown:
        raise ValueError(f"unknown neuron settings {unknown}; use some of {', '.join(known)}")
    return NeuronConfig(**neuron)
