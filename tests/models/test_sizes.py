"""Every published size of the families of one stage, by its shapes alone."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import snnvit_jax as snn
from snnvit_jax.models import FAMILIES, family_of
from snnvit_jax.time_steps.masks import SCORE

# name -> (embed_dim, depth, num_heads, classes, number of parameters). The numbers count what the
# authors construct and never use. Not all are published; the others follow by `formula`.
SIZES = {
    "spikformer_4_256": (256, 4, 8, 10, 4_159_274),
    "spikformer_2_384": (384, 2, 12, 10, 5_768_122),
    "spikformer_4_384": (384, 4, 12, 10, 9_330_874),
    "spikformer_8_384_imagenet": (384, 8, 8, 1000, 16_828_312),
    "spikformer_8_512_imagenet": (512, 8, 8, 1000, 29_705_768),
    "spikformer_10_512_imagenet": (512, 10, 8, 1000, None),
    "spikformer_8_768_imagenet": (768, 8, 12, 1000, 66_363_208),
    "spikingformer_4_256": (256, 4, 8, 10, None),
    "spikingformer_2_384": (384, 2, 12, 10, None),
    "spikingformer_4_384": (384, 4, 12, 10, 9_326_266),
    "spikingformer_8_384_imagenet": (384, 8, 8, 1000, None),
    "spikingformer_8_512_imagenet": (512, 8, 8, 1000, None),
    "spikingformer_8_768_imagenet": (768, 8, 8, 1000, None),
    "sdt_2_256": (256, 2, 8, 10, 2_567_082),
    "sdt_2_512": (512, 2, 8, 10, 10_233_546),
    "sdt_8_384_imagenet": (384, 8, 8, 1000, None),
    "sdt_8_512_imagenet": (512, 8, 8, 1000, 29_689_896),
    "sdt_8_768_imagenet": (768, 8, 8, 1000, None),
}
ATTENTION = {
    "spikformer": ("q", "k", "v", "attn", "proj"),
    "spikingformer": ("proj", "q", "k", "v", "attn"),
    "sdt": ("shortcut", "q", "k", "v", "talking_heads"),
}
MLP = {"spikformer": ("fc1", "fc2"), "spikingformer": ("mlp1", "mlp2"), "sdt": ("fc1", "fc2")}
STAGES = ["proj_lif", "proj_lif1", "proj_lif2", "proj_lif3"]
EMBEDDING = {
    "spikformer": [*STAGES, "rpe_lif"],
    "spikingformer": [f"block{i}_lif" for i in (1, 2, 3, 4)],
    "sdt": STAGES,
}


def formula(name, dim, depth, heads, classes):
    """Parameters of a model, layer by layer: kernels, biases, normalisations, what is never used.

    With D channels: convolutions of 9 inputs; q, k, v, their projection and an MLP of 4 D.
    """
    convolutions = 9 * (3 * dim // 8 + dim**2 * (1 / 32 + 1 / 8 + 1 / 2 + 1))
    embedding = convolutions + 2 * dim * (1 / 8 + 1 / 4 + 1 / 2 + 1 + 1)
    biases = {"spikformer": (9 if "imagenet" not in name else 6), "spikingformer": 6, "sdt": 6}
    unused = {"spikformer": 4 * dim, "spikingformer": 4 * dim, "sdt": heads**2}
    family = family_of(name).name
    block = 12 * dim**2 + (biases[family] + 18) * dim + unused[family]
    return embedding + depth * block + (dim + 1) * classes


@pytest.fixture(scope="module", params=SIZES)
def published(request):
    """A model without any number in it."""
    name = request.param
    dim, depth, heads, classes, count = SIZES[name]
    model = snn.create_model(name, num_classes=classes)
    images = jax.ShapeDtypeStruct((2, *model.config.image_size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    params = traverse_util.flatten_dict(variables["params"], sep="/")
    return types.SimpleNamespace(**locals(), family=family_of(name))


def test_every_size_of_these_families_is_here():
    names = [name for family in EMBEDDING for name in FAMILIES[family].sizes]
    assert list(SIZES) == [name for name in names if not name.endswith("_dvs")]  # see event forms


def test_parameters_are_as_many_as_published(published):
    p = published
    counted = sum(leaf.size for path, leaf in p.params.items() if SCORE not in path)
    expected = formula(p.name, p.dim, p.depth, p.heads, p.classes)
    assert p.count in (None, expected)
    sizes = {"weight": p.dim, "bias": p.dim} | {"talking_heads.weight": p.heads**2}
    unused = p.family.unused(p.model)
    assert counted == expected - sum(
        next(n for end, n in reversed(sizes.items()) if name.endswith(end)) for name in unused
    )


def test_spiking_layers_are_named_as_published_in_forward_order(published):
    family, depth = published.family.name, published.depth
    block = [f"attn/{name}_lif" for name in ATTENTION[family]]
    block += [f"mlp/{name}_lif" for name in MLP[family]]
    expected = [f"patch_embed/{name}" for name in EMBEDDING[family]]
    expected += [f"block_{i}/{name}" for i in range(depth) for name in block]
    expected += ["head_lif"] if family == "sdt" else []
    assert snn.layer_names(published.model) == expected
    scores = {path.removesuffix(f"/{SCORE}") for path in published.params if SCORE in path}
    assert scores == set(expected)


def test_logits_have_one_column_per_class(published):
    logits = jax.eval_shape(published.model.apply, published.variables, published.images)
    assert (logits.shape, logits.dtype) == ((2, published.classes), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(published.variables)} == {np.dtype("float32")}


def test_settings_are_the_published_ones(published):
    config, imagenet = published.model.config, published.name.endswith("_imagenet")
    sizes = (config.embed_dim, config.depth, config.num_heads, config.mlp_ratio)
    assert sizes == (published.dim, published.depth, published.heads, 4)
    assert config.image_size == ((224, 224) if imagenet else (32, 32))
    assert config.patch_stride == (16 if imagenet else 4)
