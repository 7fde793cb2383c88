"""Every published size by its shapes alone, and what `create_model` refuses."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import snnvit_jax as snn
from snnvit_jax.time_steps.masks import SCORE

# name -> (embed_dim, depth, num_heads, classes, published number of parameters). The published
# numbers count two LayerNorms per block that the authors construct and never use.
PUBLISHED = {
    "spikformer_4_256": (256, 4, 8, 10, 4_159_274),
    "spikformer_2_384": (384, 2, 12, 10, 5_768_122),
    "spikformer_4_384": (384, 4, 12, 10, 9_330_874),
    "spikformer_8_384_imagenet": (384, 8, 8, 1000, 16_828_312),
    "spikformer_8_512_imagenet": (512, 8, 8, 1000, 29_705_768),
    # Not published: two blocks more than 8-512, each with linear maps of 12 D^2 + 6 D, batch
    # normalisations of 18 D and LayerNorms of 4 D parameters.
    "spikformer_10_512_imagenet": (512, 10, 8, 1000, 29_705_768 + 2 * (12 * 512**2 + 28 * 512)),
    "spikformer_8_768_imagenet": (768, 8, 12, 1000, 66_363_208),
}
EMBEDDING = ["proj_lif", "proj_lif1", "proj_lif2", "proj_lif3", "rpe_lif"]
EMBEDDING = [f"patch_embed/{name}" for name in EMBEDDING]
BLOCK = [f"attn/{n}_lif" for n in ("q", "k", "v", "attn", "proj")] + ["mlp/fc1_lif", "mlp/fc2_lif"]


def shapes_of(name):
    """A published model without any number in it."""
    dim, depth, heads, classes, count = PUBLISHED[name]
    model = snn.create_model(name, num_classes=classes)
    images = jax.ShapeDtypeStruct((2, *model.config.image_size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return types.SimpleNamespace(
        name=name,
        model=model,
        images=images,
        variables=variables,
        params=traverse_util.flatten_dict(variables["params"], sep="/"),
        embed_dim=dim,
        depth=depth,
        num_heads=heads,
        classes=classes,
        published_count=count,
    )


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request):
    return shapes_of(request.param)


def test_every_model_of_the_registry_is_tested_here():
    own = [name for name in snn.list_models() if name.startswith("spikformer")]
    own = [name for name in own if not name.endswith("_dvs")]
    assert set(PUBLISHED) == set(own)  # of the other families and forms, their own tests


def test_parameters_are_as_many_as_published(published):
    counted = sum(p.size for path, p in published.params.items() if SCORE not in path)
    unused = published.depth * 2 * 2 * published.embed_dim
    assert counted == published.published_count - unused


def test_spiking_layers_are_named_as_published_in_forward_order(published):
    blocks = [f"block_{i}/{name}" for i in range(published.depth) for name in BLOCK]
    assert snn.layer_names(published.model) == EMBEDDING + blocks


def test_every_spiking_layer_has_its_scores_and_nothing_else_has(published):
    scores = {path: p for path, p in published.params.items() if SCORE in path}
    assert len(scores) == 5 + 7 * published.depth
    assert {p.shape for p in scores.values()} == {(4,)}


def test_logits_have_one_column_per_class(published):
    logits = jax.eval_shape(published.model.apply, published.variables, published.images)
    assert (logits.shape, logits.dtype) == ((2, published.classes), jnp.float32)


def test_variables_are_float32_parameters_and_batch_statistics(published):
    assert set(published.variables) == {"params", "batch_stats"}
    assert {leaf.dtype for leaf in jax.tree.leaves(published.variables)} == {np.dtype("float32")}


def test_heads_and_sizes_are_the_published_ones(published):
    config = published.model.config
    assert config.num_heads == published.num_heads
    assert config.mlp_ratio == 4
    imagenet = published.name.endswith("_imagenet")
    assert config.image_size == ((224, 224) if imagenet else (32, 32))
    assert config.patch_stride == (16 if imagenet else 4)


# ---------------------------------------------------------------- overrides


def test_overrides_change_what_they_name():
    model = snn.create_model(
        "spikformer_4_384",
        7,
        image_size=(16, 24),
        time_steps=6,
        embed_dim=48,
        num_heads=3,
        depth=1,
        mlp_ratio=2,
    )
    images = jnp.zeros((5, 16, 24, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    params = traverse_util.flatten_dict(variables["params"], sep="/")
    assert params["block_0/mlp/fc1_linear/kernel"].shape == (48, 96)
    assert params[f"block_0/mlp/fc1_lif/{SCORE}"].shape == (6,)
    assert jax.eval_shape(model.apply, variables, images).shape == (5, 7)
    assert len(snn.layer_names(model)) == 12
    assert model.config.num_heads == 3


def test_none_keeps_the_published_value():
    model = snn.create_model("spikformer_4_384", image_size=None, embed_dim=None, neuron=None)
    assert model == snn.create_model("spikformer_4_384")


def test_neuron_may_be_given_as_a_mapping():
    model = snn.create_model("spikformer_4_384", neuron={"kind": "plif", "reset": "soft"})
    assert (model.config.neuron.kind, model.config.neuron.reset) == ("plif", "soft")


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "spikeformer_4_384"}, r"'spikeformer_4_384'.*spikformer_4_384"),
        ({"embed_dims": 64}, r"\['embed_dims'\].*embed_dim"),
        ({"stages": 4}, r"\['stages'\]"),
        ({"pool": (True, True)}, r"pool=\(True, True\)"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"num_classes": 10.0}, r"num_classes=10\.0 must be a whole number"),
        ({"depth": "4"}, "depth='4' must be a whole number"),
        ({"embed_dim": True}, "embed_dim=True must be a whole number"),
        ({"image_size": 32.0}, r"image_size=\(32\.0, 32\.0\)"),
        ({"neuron": "lif"}, "neuron='lif' must be a Neuron or a mapping of .*kind"),
        ({"time_steps": 0}, "time_steps=0"),
        ({"time_steps": 2.5}, r"time_steps=2\.5"),
        ({"image_size": 30}, r"image_size=\(30, 30\).*stride 4"),
        ({"image_size": (32, 18)}, r"image_size=\(32, 18\).*stride 4"),
        ({"image_size": 0}, r"image_size=\(0, 0\)"),
        ({"name": "spikformer_8_384_imagenet", "image_size": 100}, r"\(100, 100\).*stride 16"),
        ({"embed_dim": 100}, "embed_dim=100.*num_heads=12"),
        ({"num_heads": 7}, "embed_dim=384.*num_heads=7"),
        ({"embed_dim": 36}, "embed_dim=36.*8"),
        ({"embed_dim": 0}, "embed_dim=0"),
        ({"num_heads": 0}, "num_heads=0"),
        ({"depth": 0}, "depth=0 must be a whole number, at least 1"),
        ({"depth": 2**64}, r"depth=18446744073709551616 must be a whole number, at least 1"),
        ({"mlp_ratio": 1e39}, r"mlp_ratio=1e\+39 must be a number, above 0"),
        ({"mlp_ratio": 0}, "mlp_ratio=0"),
        ({"neuron": {"kind": "izhikevich"}}, "kind='izhikevich'"),
        ({"neuron": {"threshold": 2.0}}, r"\['threshold'\].*tau"),
        ({"neuron": {"tau": 0.5}}, r"tau=0\.5"),
        ({"neuron": {"surrogate": "gaussian"}}, "surrogate='gaussian'"),
        ({"neuron": {"reset": "gentle"}}, "reset='gentle'"),
        ({"neuron": {"estimator": "magic"}}, "estimator='magic'"),
    ],
)
def test_bad_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        snn.create_model(**{"name": "spikformer_4_384", **settings})


@pytest.mark.parametrize("shape", [(2, 32, 28, 3), (2, 16, 16, 3), (32, 32, 3), (1, 2, 32, 32, 3)])
def test_images_of_another_size_are_rejected_with_both_sizes(shape):
    model = snn.create_model("spikformer_4_384")
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    with pytest.raises(ValueError, match=r"\[B, 32, 32, 3\]") as error:
        jax.eval_shape(model.apply, variables, jnp.zeros(shape))
    assert str(shape) in str(error.value)
