"""Published weights give the published numbers: spikes, logits, loss, gradients, statistics."""

import warnings

import golden_files
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import snnvit_jax as snn
from snnvit_jax.weights import names

TRAINED = [name for name in golden_files.FILES if not name.endswith("_exact")]
CLOSELY = [name for name in TRAINED if "imagenet" not in name]  # one file of each family


def as_numpy(spikes):
    return {name: np.asarray(emitted) for name, emitted in spikes.items()}  # keeps the order


def run_eval(golden, dtype):
    """(logits, spikes) in inference mode."""
    model = golden.model(dtype=dtype)
    variables = snn.convert.from_torch(model, golden.weights)
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)
    apply = jax.jit(lambda v, x: model.apply(v, x, mutable=["spikes"]))
    with jax.default_matmul_precision("highest"):
        logits, seen = apply(variables, golden.images.astype(dtype))
    return np.asarray(logits), as_numpy(snn.spikes(seen))


def run_train(golden, dtype):
    """A `golden_files.Pass` of one training step."""
    model = golden.model(dtype=dtype)
    variables = snn.convert.from_torch(model, golden.weights)
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)

    def loss_fn(params, batch_stats, images):
        variables = {"params": params, "batch_stats": batch_stats}
        logits, new = model.apply(variables, images, train=True, mutable=["batch_stats", "spikes"])
        log_probabilities = jax.nn.log_softmax(logits)
        loss = -jnp.mean(log_probabilities[jnp.arange(len(golden.labels)), golden.labels])
        return loss, (logits, new)

    with jax.default_matmul_precision("highest"):
        step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
        (loss, (logits, new)), gradients = step(
            variables["params"], variables["batch_stats"], golden.images.astype(dtype)
        )
    return golden_files.Pass(
        logits=np.asarray(logits),
        spikes=as_numpy(snn.spikes(new)),
        loss=float(loss),
        gradients=golden_files.as_published(gradients),
        running=golden_files.as_published(new["batch_stats"]),
    )


def assert_same_spikes(spikes, expected):
    assert list(spikes) == list(expected)  # in forward order
    flips = {name: int((spikes[name] != expected[name]).sum()) for name in expected}
    assert not any(flips.values()), flips
    assert {name: s.shape for name, s in spikes.items()} == {
        name: s.shape for name, s in expected.items()
    }


def assert_same_gradients(gradients, golden, tolerance, zero):
    assert set(gradients) == set(golden.train.gradients)
    for name, expected in golden.train.gradients.items():
        difference = np.linalg.norm(gradients[name].reshape(expected.shape) - expected)
        # A bias before a normalisation has no gradient: what is there is rounding.
        limit = zero if name in golden.meta["near_zero_grads"] else None
        assert difference <= (limit or tolerance * np.linalg.norm(expected)), name


@pytest.fixture(scope="module", params=golden_files.FILES)
def evaluated(request):
    golden = golden_files.read(request.param)
    return golden, *run_eval(golden, "float32")


@pytest.fixture(scope="module", params=TRAINED)
def trained(request):
    golden = golden_files.read(request.param)
    return golden, run_train(golden, "float32")


# ---------------------------------------------------------------- inference


def test_spikes_of_every_layer_are_the_published_ones(evaluated):
    golden, _, spikes = evaluated
    assert_same_spikes(spikes, golden.eval.spikes)


def test_every_layer_of_a_golden_file_fires_somewhere(evaluated):
    golden, *_ = evaluated
    assert all(0 < spikes.mean() < 1 for spikes in golden.eval.spikes.values())


def test_logits_are_the_published_ones(evaluated):
    golden, logits, _ = evaluated
    tolerance = 0 if golden.meta["exact"] else 1e-5
    np.testing.assert_allclose(logits, golden.eval.logits, 0, tolerance)


# Not the exact file: its arithmetic is exact in float32 only, where var + 1e-5 is a power of 4.
@pytest.mark.parametrize("name", TRAINED)
def test_float64_flips_no_spike_and_gives_the_float64_logits(name, x64):
    golden = golden_files.read(name)
    logits, spikes = run_eval(golden, "float64")
    assert_same_spikes(spikes, golden.eval.spikes)
    np.testing.assert_allclose(logits, golden.logits64, 0, 1e-12)


# ---------------------------------------------------------------- a training step


def test_training_spikes_are_the_published_ones(trained):
    golden, step = trained
    assert_same_spikes(step.spikes, golden.train.spikes)


def test_training_logits_and_loss_are_the_published_ones(trained):
    golden, step = trained
    np.testing.assert_allclose(step.logits, golden.train.logits, 0, 1e-5)
    assert step.loss == pytest.approx(golden.train.loss, rel=1e-6)


def test_every_gradient_is_the_published_one(trained):
    golden, step = trained
    assert_same_gradients(step.gradients, golden, tolerance=1e-4, zero=1e-5)


def test_running_statistics_are_the_published_ones(trained):
    golden, step = trained
    assert set(step.running) == set(golden.train.running)
    for name, expected in golden.train.running.items():
        np.testing.assert_allclose(step.running[name], expected, 1e-5, 1e-6, err_msg=name)


@pytest.mark.parametrize("name", CLOSELY)
def test_float64_training_step_agrees_more_closely(name, x64):
    golden = golden_files.read(name)
    step = run_train(golden, "float64")
    assert_same_spikes(step.spikes, golden.train.spikes)
    assert step.loss == pytest.approx(golden.train.loss, rel=1e-7)
    assert_same_gradients(step.gradients, golden, tolerance=1e-6, zero=1e-9)
    for name, expected in golden.train.running.items():
        np.testing.assert_allclose(step.running[name], expected, 2e-7, 1e-8, err_msg=name)


# ---------------------------------------------------------------- conversion


@pytest.fixture(params=TRAINED)
def golden(request):
    return golden_files.read(request.param)


def test_conversion_loses_nothing_but_what_is_never_used(golden):
    variables = snn.convert.from_torch(golden.model(), golden.weights)
    assert set(variables) == {"params", "batch_stats"}
    published = golden_files.as_published(variables["params"])
    published |= golden_files.as_published(variables["batch_stats"])
    assert golden.unused
    assert set(golden.weights) - set(published) == set(golden.unused)
    for name, array in published.items():
        expected = golden.weights[name]
        np.testing.assert_array_equal(array.reshape(expected.shape), expected, err_msg=name)


def test_converted_variables_are_those_of_the_model(golden):
    model = golden.model()
    variables = snn.convert.from_torch(model, golden.weights)
    expected = jax.eval_shape(model.init, jax.random.key(0), golden.images)
    described = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (variables, expected))
    assert described[0] == described[1]


def test_every_time_step_of_converted_weights_is_active(golden):
    variables = snn.convert.from_torch(golden.model(), golden.weights)
    assert snn.TimeStepSchedule.from_variables(variables).average == 4


def assert_same_variables(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert jax.tree.all(jax.tree.map(np.array_equal, one, other))


def test_unused_weights_and_counters_are_ignored(golden):
    without = {name: w for name, w in golden.weights.items() if name not in golden.unused}
    means = [name for name in without if name.endswith("running_mean")]
    counters = [name.replace("running_mean", "num_batches_tracked") for name in means]
    more = golden.weights | dict.fromkeys(counters, np.int64(7))
    assert len(more) == len(golden.weights) + 5 + 2 * 6  # of four stages, one more, and two blocks
    from_all, from_less, from_more = (
        snn.convert.from_torch(golden.model(), weights)
        for weights in (golden.weights, without, more)
    )
    assert_same_variables(from_all, from_less)
    assert_same_variables(from_all, from_more)


def test_whatever_is_missing_is_named(golden):
    model = golden.model()
    for name in golden.weights.keys() - set(golden.unused):
        weights = {other: w for other, w in golden.weights.items() if other != name}
        with pytest.raises(ValueError, match=rf"missing=\['{name}'\], unexpected=\[\]"):
            snn.convert.from_torch(model, weights)


def test_whatever_belongs_to_no_layer_is_named(golden):
    model = golden.model()
    beyond = [name.replace("block.0.", "block.2.") for name in golden.weights if ".0." in name]
    extra = ["norm1.weight", "block.0.norm3.weight", "block.0.attn.q_lif.w", "block.0.attn.scale"]
    for name in (*beyond, *extra, "head.num_batches_tracked", "nowhere.num_batches_tracked"):
        weights = golden.weights | {name: np.zeros(64, np.float32)}
        with pytest.raises(ValueError, match=rf"missing=\[\], unexpected=\['{name}'\]"):
            snn.convert.from_torch(model, weights)


def test_whatever_has_another_shape_is_named_with_both(golden):
    model = golden.model()
    for name in golden.weights.keys() - set(golden.unused):
        weights = golden.weights | {name: np.zeros((3, 5, 7), np.float32)}
        with pytest.raises(ValueError, match=rf"'{name}' is \(3, 5, 7\), not \(") as error:
            snn.convert.from_torch(model, weights)
        assert str(error.value).count(" not (") == 1


@pytest.fixture
def weights():
    return dict(golden_files.read("spikformer_small").weights)


@pytest.fixture
def model():
    return golden_files.read("spikformer_small").model()


@pytest.mark.parametrize(
    "name",
    [
        "patch_embed.proj_conv.weight",
        "patch_embed.rpe_bn.running_var",
        "block.0.attn.q_linear.bias",
        "block.1.mlp.fc2_bn.running_mean",
        "head.bias",
    ],
)
def test_missing_tensor_is_named(model, weights, name):
    del weights[name]
    with pytest.raises(ValueError, match=rf"missing=\['{name}'\], unexpected=\[\]"):
        snn.convert.from_torch(model, weights)


@pytest.mark.parametrize(
    "name",
    [
        "block.2.norm1.weight",  # of a block beyond the depth
        "block.0.norm3.weight",
        "norm1.weight",
        "block.0.attn.q_lif.w",
        "patch_embed.proj_conv.bias",
        "head.num_batches_tracked",  # no normalisation there
        "nowhere.num_batches_tracked",
    ],
)
def test_extra_tensor_is_named(model, weights, name):
    weights[name] = np.zeros(64, np.float32)
    with pytest.raises(ValueError, match=rf"missing=\[\], unexpected=\['{name}'\]"):
        snn.convert.from_torch(model, weights)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("patch_embed.proj_conv.weight", (8, 27)),
        ("patch_embed.proj_conv1.weight", (3, 3, 8, 16)),
        ("patch_embed.proj_bn.running_mean", (1, 8)),
        ("block.0.attn.q_linear.weight", (64, 64, 3)),
        ("block.1.mlp.fc1_linear.weight", (64, 256)),
        ("head.weight", (10,)),
        ("head.bias", ()),
    ],
)
def test_misshapen_tensor_is_named_with_its_shape(model, weights, name, shape):
    weights[name] = np.zeros(shape, np.float32)
    with pytest.raises(ValueError) as error:
        snn.convert.from_torch(model, weights)
    assert name in str(error.value)
    assert str(shape) in str(error.value)


def test_every_misfit_of_a_kind_is_named_at_once(model, weights):
    with pytest.raises(ValueError, match=r"head\.bias.*head\.weight.*block\.7"):
        snn.convert.from_torch(
            model, {n: w for n, w in weights.items() if "head" not in n} | {"block.7.x": 0}
        )
    weights |= {"head.bias": np.zeros(3), "head.weight": np.zeros((3, 64))}
    with pytest.raises(ValueError, match=r"(?s)head\.(bias|weight).*head\.(bias|weight)") as error:
        snn.convert.from_torch(model, weights)
    assert "head.bias" in str(error.value)


def test_weights_of_the_other_form_are_rejected_by_name(model):
    weights = golden_files.read("spikformer_imagenet_small").weights
    with pytest.raises(ValueError, match=r"block\.0\.attn\.q_linear\.weight.*q_conv\.weight"):
        snn.convert.from_torch(model, weights)


def test_images_with_another_number_of_channels_are_possible():
    weights = dict(golden_files.read("spikformer_small").weights)
    weights["patch_embed.proj_conv.weight"] = np.ones((8, 1, 3, 3), np.float32)
    model = golden_files.read("spikformer_small").model()
    variables = snn.convert.from_torch(model, weights)
    assert variables["params"]["patch_embed"]["proj_conv"]["kernel"].shape == (3, 3, 1, 8)


# ---------------------------------------------------------------- names of wrapped models


@pytest.mark.parametrize(
    "wrap",
    [
        "module.{}",
        "_orig_mod.{}",
        "module._orig_mod.{}",
        "_orig_mod.module.{}",
        "model.{}",
        "model._orig_mod.{}",
        "net.{}",
        "_forward_module.{}",
        "_forward_module.model.module.{}",
        "_fsdp_wrapped_module.{}",
        "module.module.{}",
    ],
)
def test_names_of_wrapped_models_are_those_of_the_model(model, weights, wrap):
    expected = snn.convert.from_torch(model, weights)
    wrapped = {wrap.format(name): array for name, array in weights.items()}
    assert_same_variables(snn.convert.from_torch(model, wrapped), expected)


def test_parts_of_a_model_may_be_wrapped(model, weights):
    expected = snn.convert.from_torch(model, weights)
    for part in ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"):
        wrapped = {n.replace("attn.", f"attn.{part}."): array for n, array in weights.items()}
        assert set(wrapped) != set(weights)
        assert_same_variables(snn.convert.from_torch(model, wrapped), expected)


def test_the_counter_of_averaged_models_is_ignored(model, weights):
    averaged = {f"module.{n}": w for n, w in weights.items()} | {"n_averaged": np.int64(7)}
    expected = snn.convert.from_torch(model, weights)
    assert_same_variables(snn.convert.from_torch(model, averaged), expected)


@pytest.mark.parametrize("name", ["module.head.bias", "_orig_mod.head.bias", "model.head.bias"])
def test_two_tensors_of_one_name_are_both_named(model, weights, name):
    weights[name] = weights["head.bias"] + 1
    with pytest.raises(ValueError, match=f"'head.bias' and '{name}' are both named 'head.bias'"):
        snn.convert.from_torch(model, weights)


@hypothesis.given(
    parts=st.lists(
        st.sampled_from(
            ["module", "_orig_mod", "model", "a", "bias", "_forward_module", "", "net"]
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_bare_name_is_bare(parts):
    bare = names.bare_name(".".join(parts))
    assert names.bare_name(bare) == bare
    assert bare.split(".")[-1] in parts
    kept = [part for part in parts if part in ("a", "bias")]
    assert [part for part in bare.split(".") if part in ("a", "bias")] == kept


# ---------------------------------------------------------------- weights that are no numbers


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize(
    "name",
    [
        "patch_embed.proj_conv.weight",
        "block.0.attn.q_linear.bias",
        "block.1.mlp.fc2_bn.running_mean",
        "block.1.mlp.fc2_bn.running_var",
        "head.weight",
    ],
)
def test_a_weight_that_is_not_finite_is_named(model, weights, name, value):
    weights[name] = weights[name].astype(np.float64)
    weights[name].flat[-1] = value
    with pytest.raises(ValueError, match=f"the weights cannot be used: '{name}' holds 1 values"):
        snn.convert.from_torch(model, weights)


@pytest.mark.parametrize("dtype", [np.int8, np.bool_, np.complex64])
def test_a_weight_of_other_numbers_than_floating_point_is_named(model, weights, dtype):
    name = "block.0.attn.q_linear.weight"
    weights[name] = weights[name].astype(dtype)
    kind = np.dtype(dtype).name
    with pytest.raises(ValueError, match=f"'{name}' holds {kind} numbers, no floating-point"):
        snn.convert.from_torch(model, weights)


@pytest.mark.parametrize("given", [None, "weights.pth", [("a", np.zeros(2))]])
def test_what_is_no_state_dict_is_told(model, given):
    with pytest.raises(ValueError, match=f"state_dict must be .* got {type(given).__name__}; of a"):
        snn.convert.from_torch(model, given)


def test_a_negative_variance_is_named(model, weights):
    name = "block.0.attn.q_bn.running_var"
    weights[name] = weights[name] - 100
    with pytest.raises(ValueError, match=f"'{name}' holds a negative variance, -9"):
        snn.convert.from_torch(model, weights)


def test_what_is_not_used_may_be_anything(model, weights):
    weights["block.0.norm1.weight"] = np.full(64, np.nan, np.float32)
    snn.convert.from_torch(model, weights)


# ---------------------------------------------------------------- learned time constants


def test_without_time_constants_they_start_at_the_models_own_and_a_warning_says_so(weights):
    model = golden_files.read("spikformer_small").model(neuron={"kind": "plif", "tau": 3.0})
    with pytest.warns(
        UserWarning, match="hold none of the constants that neurons learn .'.*_lif.w' and 18 oth"
    ):
        variables = snn.convert.from_torch(model, weights)
    flat = traverse_util.flatten_dict(variables)
    logits = [leaf for path, leaf in flat.items() if path[-1] == "tau_logit"]
    np.testing.assert_allclose(1 + np.exp(-np.array(logits)), np.full(19, 3.0), rtol=1e-6)
    lif = snn.convert.from_torch(golden_files.read("spikformer_small").model(), weights)
    assert_same_variables(
        traverse_util.unflatten_dict({p: a for p, a in flat.items() if p[-1] != "tau_logit"}), lif
    )


def test_learned_time_constants_of_the_authors_neuron_are_taken(weights):
    model = golden_files.read("spikformer_small").model(neuron={"kind": "plif"})
    layers = [name.replace("block_", "block.").replace("/", ".") for name in snn.layer_names(model)]
    learned = {f"{name}.w": np.float32(i / 10) for i, name in enumerate(layers)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        params = snn.convert.from_torch(model, weights | learned)["params"]
    assert params["block_0"]["attn"]["q_lif"]["tau_logit"] == learned["block.0.attn.q_lif.w"]
    del learned["block.0.attn.q_lif.w"]
    with pytest.raises(ValueError, match=r"missing=\['block.0.attn.q_lif.w'\], unexpected=\[\]"):
        snn.convert.from_torch(model, weights | learned)
