"""Spikformer's behaviour, beyond the published numbers that tests/test_convert.py compares."""

import copy
import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import errors, traverse_util

import snnvit_jax as snn
from snnvit_jax import layers
from snnvit_jax.models.spikformer import family
from snnvit_jax.models.spikformer.model import Block, PatchEmbedding
from snnvit_jax.neurons import LIF, create_neuron
from snnvit_jax.neurons.surrogates import SURROGATES
from snnvit_jax.signals import Signal
from snnvit_jax.time_steps.masks import SCORE, initial_scores


@pytest.fixture(scope="module")
def record(tiny):
    """Runs inference: (logits, recorded collections), with the residual streams among them."""
    streams = (PatchEmbedding, Block)
    return jax.jit(
        lambda images: tiny.model.apply(
            tiny.variables,
            images,
            mutable=["spikes", "intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, streams),
        )
    )


@pytest.fixture(scope="module")
def seen(tiny, record):
    return record(tiny.images)


@pytest.fixture(scope="module")
def infer(tiny):
    return jax.jit(tiny.model.apply)


def training_step(model, images):
    """Returns a function: variables -> (gradients, (logits, other collections))."""

    def loss_fn(params, batch_stats):
        variables = {"params": params, "batch_stats": batch_stats}
        logits, new = model.apply(variables, images, train=True, mutable=["batch_stats"])
        labels = jnp.arange(len(images))
        return -jax.nn.log_softmax(logits)[labels, labels].sum(), (logits, new)

    gradient = jax.grad(loss_fn, has_aux=True)
    return lambda variables: gradient(variables["params"], variables["batch_stats"])


def variant(tiny, **settings):
    return tiny.model.clone(config=dataclasses.replace(tiny.model.config, **settings))


@pytest.fixture(scope="module")
def learnable(tiny, lively):
    """(variables, training step) of a model with everything that can be learned in it."""
    model = variant(tiny, neuron=create_neuron(kind="plif"), time_steps=2)
    return lively(model), jax.jit(training_step(model, tiny.images))


@pytest.fixture(scope="module")
def trained(learnable):
    variables, step = learnable
    return step(variables)


def shifted_statistics(variables):
    return {**variables, "batch_stats": jax.tree.map(lambda s: s + 1, variables["batch_stats"])}


# ---------------------------------------------------------------- signals


def test_spikes_are_zero_or_one_and_every_layer_emits_both(seen):
    for name, spikes in snn.spikes(seen[1]).items():
        assert set(np.unique(spikes)) == {0, 1}, name


def test_spikes_are_recorded_with_time_first(seen):
    shapes = {name: spikes.shape for name, spikes in snn.spikes(seen[1]).items()}
    assert shapes["patch_embed/proj_lif"] == (4, 3, 16, 16, 4)
    assert shapes["patch_embed/proj_lif2"] == (4, 3, 16, 16, 16)
    assert shapes["patch_embed/rpe_lif"] == (4, 3, 4, 4, 32)
    assert shapes["block_0/attn/attn_lif"] == (4, 3, 16, 32)
    assert shapes["block_0/mlp/fc1_lif"] == (4, 3, 16, 128)


@pytest.mark.parametrize(("part", "largest"), [("patch_embed", 2), ("block_0", 4)])
def test_residual_stream_holds_small_non_negative_integers(seen, part, largest):
    (stream,) = seen[1]["intermediates"][part]["__call__"]
    assert set(np.unique(stream.values)) == set(range(largest + 1))


def test_residual_is_added_after_the_last_spiking_layer(seen):
    streams, spikes = seen[1]["intermediates"], snn.spikes(seen[1])
    (before,), (after,) = streams["patch_embed"]["__call__"], streams["block_0"]["__call__"]
    added = spikes["block_0/attn/proj_lif"] + spikes["block_0/mlp/fc2_lif"]
    before, after = before.tokens().values, after.values
    np.testing.assert_array_equal(after - before, added.swapaxes(0, 1))


def test_logits_are_the_output_layer_of_the_mean_over_tokens_and_steps(tiny, seen):
    (stream,) = seen[1]["intermediates"]["block_0"]["__call__"]  # B T N D
    head = tiny.variables["params"]["head"]
    expected = np.mean(stream.values, (1, 2)) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(seen[0], expected, 1e-5, 1e-6)


def test_images_do_not_see_each_other(tiny, record, seen):
    images = tiny.images[[2, 1, 0]]
    images[1] = 0
    logits, other = record(images)
    assert (logits[1] != seen[0][1]).any()
    np.testing.assert_allclose(logits[::2], seen[0][::-2], 1e-6, 1e-6)
    for name, spikes in snn.spikes(seen[1]).items():
        np.testing.assert_array_equal(snn.spikes(other)[name][:, ::2], spikes[:, ::-2])


@pytest.mark.parametrize("tokens", [3, 9])  # fewer and more than channels of a head: both orders
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_is_the_product_of_spikes_head_by_head(tokens, dtype):
    rng = np.random.default_rng(0)
    q, k, v = rng.integers(0, 2, (3, 2, 4, tokens, 18)).astype(np.float64)  # B T N C
    expected = np.zeros_like(q)
    for head in (slice(0, 6), slice(6, 12), slice(12, 18)):
        weights = q[..., head] @ k[..., head].swapaxes(-1, -2)
        expected[..., head] = weights @ v[..., head] / 8
    attend = jax.jit(layers.spiking_attention, static_argnums=3)
    y = attend(*(jnp.asarray(x, dtype) for x in (q, k, v)), 3)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.astype("float32"), expected)


# ---------------------------------------------------------------- recording


class OutOfOrder(nn.Module):
    """Spiking layers whose names are not in the order of the forward pass."""

    @nn.compact
    def __call__(self, x):
        for name in ("second_lif", "first_lif", "another_lif"):
            x = LIF(name=name)(x)
        return x


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_recorded_layers_are_in_forward_order(transform):
    model, current = OutOfOrder(), jnp.full((1, 2, 3), 3.0)
    variables = jax.jit(model.init)(jax.random.key(0), current)
    run = transform(lambda v: model.apply(v, current, mutable=["spikes"]))
    for _ in range(2):
        assert list(snn.spikes(run(variables)[1])) == ["second_lif", "first_lif", "another_lif"]


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: lambda x: f(x[0]),
        jax.vmap,
        lambda f: functools.partial(jax.lax.map, f),
        lambda f: jax.jit(jax.jit(jax.vmap(f))),
        lambda f: functools.partial(jax.eval_shape, jax.vmap(f)),
        lambda f: lambda x: jax.lax.scan(lambda _, image: (None, f(image)), None, x)[1],
    ],
    ids=["none", "vmap", "map", "jit in jit", "eval_shape", "scan"],
)
def test_recorded_layers_keep_their_order_through_every_transformation(transform):
    model, current = OutOfOrder(), jnp.full((2, 1, 2, 3), 3.0)
    variables = jax.eval_shape(model.init, jax.random.key(0), current[0])
    variables = jax.tree.map(lambda x: jnp.full(x.shape, 0.5), variables)

    run = transform(lambda x: model.apply(variables, x, mutable=["spikes"])[1])
    found = snn.spikes(run(current))
    assert list(found) == ["second_lif", "first_lif", "another_lif"]
    assert {spikes.shape[-3:] for spikes in found.values()} == {(2, 1, 3)}  # T B N


def test_layer_names_are_those_recorded_under_jit(tiny, seen):
    assert snn.layer_names(tiny.model) == list(snn.spikes(seen[1]))


def test_recording_changes_no_logit(tiny, seen, infer):
    np.testing.assert_allclose(infer(tiny.variables, tiny.images), seen[0], 1e-6, 1e-6)


def test_recording_in_training_sees_into_blocks_that_would_be_computed_again(tiny):
    names = {}

    def program(remat):
        def recorded(variables):
            model, collections = variant(tiny, remat=remat), ["batch_stats", "spikes"]
            logits, new = model.apply(variables, tiny.images, train=True, mutable=collections)
            names[remat] = list(snn.spikes(new))
            return logits, list(snn.spikes(new).values())

        return str(jax.make_jaxpr(recorded)(tiny.variables))

    assert program("block") == program("none")
    assert names["block"] == names["none"] == snn.layer_names(tiny.model)


def test_asking_for_spikes_that_were_not_recorded_is_explained(tiny):
    with pytest.raises(ValueError, match=r"batch_stats.*mutable=\[\"spikes\"\]"):
        snn.spikes({"batch_stats": tiny.variables["batch_stats"]})


# ---------------------------------------------------------------- settings


def test_settings_may_be_numbers_of_numpy():
    plain = {"image_size": 16, "time_steps": 2, "embed_dim": 32, "depth": 1, "mlp_ratio": 2.0}
    given = {key: np.array(value)[()] for key, value in plain.items()}
    pool = (True, False, False, True)
    one = snn.create_model("spikformer_4_256", 5, num_heads=4, pool=pool, **plain)
    same = snn.create_model(
        "spikformer_4_256", np.int64(5), num_heads=np.int8(4), pool=[*np.array(pool)], **given
    )
    assert one.config == same.config
    assert repr(one.config) == repr(same.config)
    assert snn.create_model("spikformer_4_256", image_size=[np.int32(16)] * 2) == (
        snn.create_model("spikformer_4_256", image_size=16)
    )


# ---------------------------------------------------------------- training and inference


def test_inference_is_the_default_and_reads_the_running_statistics(tiny, seen, infer):
    logits = infer(shifted_statistics(tiny.variables), tiny.images)
    assert logits.shape == (3, 3)  # nothing but the logits
    assert np.abs(logits - seen[0]).max() > 0.01


def test_training_normalises_by_the_batch_and_not_by_the_running_statistics(learnable, trained):
    variables, step = learnable
    _, (logits, _) = step(shifted_statistics(variables))
    np.testing.assert_array_equal(logits, trained[1][0])


def test_training_updates_every_running_statistic_by_a_tenth(learnable, trained):
    variables, step = learnable
    _, (_, collections) = trained
    assert set(collections) == {"batch_stats"}
    old, new = variables["batch_stats"], collections["batch_stats"]
    assert jax.tree.structure(new) == jax.tree.structure(old)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), old, new)))
    of_shifted = step(shifted_statistics(variables))[1][1]["batch_stats"]
    for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(of_shifted), strict=True):
        np.testing.assert_allclose(b - a, 0.9, 1e-5)


def test_training_without_mutable_statistics_is_refused(tiny):
    with pytest.raises(errors.ModifyScopeVariableError):
        jax.eval_shape(lambda v, x: tiny.model.apply(v, x, train=True), *tiny[1:])


def test_every_parameter_learns(trained):
    gradients = traverse_util.flatten_dict(trained[0], sep="/")
    assert sum(path.endswith("tau_logit") for path in gradients) == 12
    for path, gradient in gradients.items():
        assert np.isfinite(gradient).all(), path
        if not path.endswith("_linear/bias"):  # without effect: a normalisation follows
            assert gradient.any(), path


# ---------------------------------------------------------------- initial values


@pytest.fixture(scope="module", params=["spikformer_4_384", "spikformer_8_512_imagenet"])
def initialise(request):
    """seed -> initial variables of a one-block model."""
    sizes = {"image_size": 16, "embed_dim": 128, "num_heads": 2, "depth": 1}
    model = snn.create_model(request.param, 200, **sizes)
    images = jnp.zeros((1, 16, 16, 3))
    # Another generator than the default, because it compiles in half the time.
    return jax.jit(lambda seed: model.init(jax.random.key(seed, impl="rbg"), images))


@pytest.fixture(scope="module")
def initial(initialise):
    """{parameter: initial value}."""
    return traverse_util.flatten_dict(initialise(0)["params"], sep="/")


def is_imagenet(params):
    return "block_0/attn/q_conv/kernel" in params


def assert_normal(values, deviation):
    """Not cut off within four deviations; bounds are many standard errors wide."""
    values = np.ravel(values)
    assert abs(values.mean()) < 5 * deviation / values.size**0.5
    assert values.std() == pytest.approx(deviation, rel=4 / values.size**0.5)
    assert np.mean(np.abs(values) > 2 * deviation) == pytest.approx(0.0455, abs=0.01)


def assert_uniform(values, bound):
    values = np.ravel(values)
    assert bound * (1 - 20 / values.size) < np.abs(values).max() <= bound
    assert abs(values.mean()) < 5 * bound / values.size**0.5
    assert values.std() == pytest.approx(bound / 3**0.5, rel=4 / values.size**0.5)


def test_convolutions_start_uniform_in_the_inverse_root_of_their_inputs(initial):
    inputs = {"proj_conv": 3, "proj_conv1": 16, "proj_conv2": 32, "proj_conv3": 64, "rpe_conv": 128}
    for name, channels in inputs.items():
        assert_uniform(initial[f"patch_embed/{name}/kernel"], (9 * channels) ** -0.5)


def test_linear_maps_start_as_published(initial):
    maps = [path for path in initial if path.startswith("block_0") and path.endswith("kernel")]
    assert len(maps) == 6
    for path in maps:
        if is_imagenet(initial):
            assert_uniform(initial[path], initial[path].shape[0] ** -0.5)
        else:
            assert_normal(initial[path], 0.02)


def test_biases_of_linear_maps_start_as_published(initial):
    biases = {path: b for path, b in initial.items() if path.endswith(("linear/bias", "conv/bias"))}
    if is_imagenet(initial):
        assert {path.split("/")[-2] for path in biases} == {"proj_conv", "fc1_conv", "fc2_conv"}
        for path, bias in biases.items():
            fan_in = initial[path.replace("bias", "kernel")].shape[0]
            assert 0.8 * fan_in**-0.5 < np.abs(bias).max() <= fan_in**-0.5
    else:
        assert len(biases) == 6
        assert not any(bias.any() for bias in biases.values())


def test_the_rest_starts_neutral(initial):
    assert_normal(initial["head/kernel"], 0.02)
    assert not initial["head/bias"].any()
    for path, leaf in initial.items():
        if "_bn" in path:
            np.testing.assert_array_equal(leaf, 1 if path.endswith("scale") else 0)
        if path.endswith(SCORE):
            np.testing.assert_array_equal(leaf, initial_scores(4))


def test_initial_statistics_are_neutral(initialise):
    for path, leaf in traverse_util.flatten_dict(initialise(0)["batch_stats"]).items():
        np.testing.assert_array_equal(leaf, 1 if path[-1] == "var" else 0)


def test_initial_values_follow_the_key(initialise):
    one, same, other = (initialise(seed)["params"]["head"]["kernel"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


# ---------------------------------------------------------------- variants

VARIANTS = [
    {"kind": "if"},
    {"kind": "plif", "tau": 1.5, "estimator": "sigmoid"},
    {"reset": "soft", "detach_reset": False},
    *({"surrogate": name} for name in SURROGATES),
]


def described(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize("neuron", VARIANTS, ids=str)
def test_every_neuron_can_be_trained(tiny, neuron):
    # Traced only: the numbers are those of the neurons' own tests.
    model = variant(tiny, neuron=create_neuron(**neuron))
    variables = jax.eval_shape(model.init, jax.random.key(0), tiny.images)
    gradients, (logits, _) = jax.eval_shape(training_step(model, tiny.images), variables)
    assert described(gradients) == described(variables["params"])
    assert logits.shape == (3, 3)


@pytest.mark.parametrize("neuron", [{"kind": "if"}, {"reset": "soft"}, {"tau": 4.0}], ids=str)
def test_another_neuron_gives_other_spikes(tiny, seen, neuron):
    model = variant(tiny, neuron=create_neuron(**neuron))

    @jax.jit
    def first_layer(variables, images):  # all that follows is not compiled
        _, collections = model.apply(variables, images, mutable=["spikes"])
        return snn.spikes(collections)["patch_embed/proj_lif"]

    spikes = first_layer(*tiny[1:])
    assert set(np.unique(spikes)) == {0, 1}
    assert (spikes != snn.spikes(seen[1])["patch_embed/proj_lif"]).any()


def test_bfloat16_infers_finite_float32_logits(tiny, seen):
    model = variant(tiny, dtype=jnp.bfloat16)
    logits = jax.jit(model.apply)(tiny.variables, tiny.images)
    assert logits.dtype == jnp.float32
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits, seen[0], atol=0.5)


def test_bfloat16_keeps_float32_parameters_statistics_and_gradients(tiny):
    model = variant(tiny, dtype=jnp.bfloat16)
    variables = jax.eval_shape(model.init, jax.random.key(0), tiny.images)
    gradients, (logits, new) = jax.eval_shape(training_step(model, tiny.images), variables)
    assert described(variables) == described(tiny.variables)
    assert described(gradients) == described(tiny.variables["params"])
    assert described(new["batch_stats"]) == described(tiny.variables["batch_stats"])
    assert logits.dtype == jnp.float32


def test_stochastic_depth_leaves_out_whole_branches_and_keeps_the_mean():
    branch = np.random.default_rng(0).normal(size=(4000, 2, 3)).astype(np.float32)
    kept = layers.drop_path(jax.random.key(0), Signal.of(jnp.asarray(branch)), 0.25)
    kept = np.asarray(kept.values)
    ratio = (kept / branch).reshape(len(branch), -1)
    assert set(np.unique(np.round(ratio, 4))) == {0.0, np.float32(1.3333)}
    np.testing.assert_array_equal(ratio.max(1) > 0, ratio.min(1) > 0)
    assert abs((ratio[:, 0] > 0).mean() - 0.75) < 0.02


def test_stochastic_depth_grows_with_the_block_and_spares_inference():
    model = snn.create_model("spikformer_4_384", drop_path=0.3, depth=3)
    rates = {}

    def note(next_function, args, kwargs, context):
        if isinstance(context.module, Block):
            rates[context.module.name] = context.module.drop_path
        return next_function(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert rates == {"block_0": 0.0, "block_1": 0.15, "block_2": 0.3}

    config = dataclasses.replace(model.config, embed_dim=16, num_heads=2, time_steps=1)
    block = Block(config, 0.9)
    x = jax.random.randint(jax.random.key(3), (40, 1, 2, 16), 0, 3).astype(jnp.float32)
    signal = Signal.of(x)
    variables = block.init(jax.random.key(0), signal, False)

    @jax.jit
    def train(key):
        rngs = {"drop_path": key}
        return block.apply(variables, signal, True, mutable=["batch_stats"], rngs=rngs)[0].values

    # A branch that is kept counts tenfold; most are not, and then an example is unchanged.
    unchanged = np.all(np.asarray(train(jax.random.key(0))) == x, axis=(1, 2, 3))
    assert 20 < unchanged.sum() < 40
    assert not np.array_equal(*(train(jax.random.key(i)) for i in (1, 2)))
    np.testing.assert_array_equal(*(block.apply(variables, signal, False).values for _ in range(2)))


def test_a_copy_of_a_configuration_has_the_same_unused_weights():
    model = snn.create_model("spikformer_2_256_dvs")
    copied = model.clone(config=copy.deepcopy(model.config))
    assert copied == model
    assert family.unused(copied) == family.unused(model) >= {"pos_embed"}
