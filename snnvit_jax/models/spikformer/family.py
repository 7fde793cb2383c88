"""Spikformer's published sizes, its authors' names, and how it is divided over devices."""

from snnvit_jax.models.family import Family
from snnvit_jax.models.single_stage import settings, small, tensor_rules, torch_name, unused_norms
from snnvit_jax.models.spikformer.model import (
    DVS_FORM,
    IMAGENET_FORM,
    Spikformer,
    SpikformerConfig,
)
from snnvit_jax.models.spikformer.recipes import RECIPES


def _imagenet(**sizes):
    return settings(224, **sizes) | {"form": IMAGENET_FORM}


SIZES = {
    # The paper leaves the heads of 4-256 open; 8 gives them the size 32 of the others.
    "spikformer_4_256": settings(32, depth=4, embed_dim=256, num_heads=8),
    "spikformer_2_384": settings(32, depth=2, embed_dim=384, num_heads=12),
    "spikformer_4_384": settings(32, depth=4, embed_dim=384, num_heads=12),
    "spikformer_8_384_imagenet": _imagenet(depth=8, embed_dim=384, num_heads=8),
    "spikformer_8_512_imagenet": _imagenet(depth=8, embed_dim=512, num_heads=8),
    "spikformer_10_512_imagenet": _imagenet(depth=10, embed_dim=512, num_heads=8),
    "spikformer_8_768_imagenet": _imagenet(depth=8, embed_dim=768, num_heads=12),
    "spikformer_2_256_dvs": settings(128, depth=2, embed_dim=256, num_heads=16)
    | {"form": DVS_FORM},
}
OF_DVS = (
    "of the form for event cameras, whose attention is scaled by 0.25 and not by 0.125: create "
    "'spikformer_2_256_dvs' with these sizes"
)


def unused(model):
    """Returns the names of weights that the authors construct and never use.

    Args:
      model: a `Spikformer`.
    """
    more = {"pos_embed", "norm.weight", "norm.bias"} if model.config.form == DVS_FORM else set()
    return unused_norms(model) | more


def check_form(model, shapes):
    """Raises ValueError for weights of a form with the same names and another attention scale.

    The authors' MLP is a Conv1d for event cameras ([out, in, 1]) and a Conv2d for ImageNet.

    Args:
      model: a `Spikformer`.
      shapes: {authors' name of a weight: its shape}.
    """
    name = "block.0.mlp.fc1_conv.weight"
    form, ends = model.config.form, shapes.get(name, ())[2:]
    if ends == (1,) and form.scale != DVS_FORM.scale:
        raise ValueError(f"{name!r} {shapes[name]} is {OF_DVS}")
    if ends == (1, 1) and form.scale == DVS_FORM.scale:
        raise ValueError(
            f"{name!r} {shapes[name]} is of the form for ImageNet, whose attention is scaled by "
            "0.125 and not by 0.25: create one of its models with these sizes"
        )


FAMILY = Family(
    name="spikformer",
    module=Spikformer,
    config=SpikformerConfig,
    sizes=SIZES,
    recipes=RECIPES,
    small=small,
    torch_name=torch_name,
    unused=unused,
    refused={"pos_embed": OF_DVS, "norm": OF_DVS},
    check_weights=check_form,
    bound=("form",),
    tensor_rules=tensor_rules("fc"),
    divided=("num_heads", "hidden_dim"),
)
