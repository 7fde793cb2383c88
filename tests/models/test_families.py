"""What every family has: deployment, early exit, energy, bfloat16, distillation, less memory."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from family_forms import (
    ALL,
    FAMILY_FORMS,
    FORMS,
    NEURONS,
    TWO_BLOCKS,
    WIDE,
    family_of,
    small,
    tiers,
)
from jax.sharding import PartitionSpec
from quickly import QUICKLY, quickly

import snnvit_jax as snn
from snnvit_jax import energy, training
from snnvit_jax.distributed.sharding import Placement, check_model
from snnvit_jax.energy import operations
from snnvit_jax.evaluation import early_exit
from snnvit_jax.time_steps import masks
from snnvit_jax.training.objective import Objective


def test_every_family_is_in_the_table():
    assert set(FAMILY_FORMS) == set(ALL)
    assert {form: snn.models.family_of(name).name for form, (name, _) in FORMS.items()} == {
        form: family_of(form) for form in FORMS
    }


@pytest.mark.parametrize("form", FORMS)
def test_every_layer_of_a_small_model_fires_sometimes(form, lively):
    model, variables, images, names = small(lively, form)
    _, seen = quickly(lambda v: model.apply(v, images, mutable=["spikes"]), variables)
    rates = {name: float(spikes.mean()) for name, spikes in snn.spikes(seen).items()}
    assert sorted(rates) == sorted(names)
    assert {name: rate for name, rate in rates.items() if not 0 < rate < 1} == {}


# ---------------------------------------------------------------- what a user may try

NAN, INF = float("nan"), float("inf")
BAD = {
    "image_size": (31, 0, -32, 32.0, "32", (32,), (32, 32, 32)),
    "mlp_ratio": ("x", (2, 4), NAN, INF, 0, True),
    "drop_path": ("x", 1.0, NAN, (0.1,)),
    "remat": (None, True, "all"),
    "dtype": ("banana", "int8", 3),
    "num_heads": (0, 2.0, "2", (2, 2)),
    "embed_dim": ("64", 0, (0, 0, 0, 0), (1.5,) * 4),
    "depth": (1.5, 0, "1", (0, 0)),
    "time_steps": (0, 2.0, "2"),
    "num_classes": (0, 2.5, "10"),
}


@pytest.mark.parametrize("form", FAMILY_FORMS)
def test_what_no_model_can_be_made_of_is_named(form):
    name, sizes = FORMS[form]
    for key, given in BAD.items():
        for value in given:
            if value is None:
                continue  # as published
            with pytest.raises(ValueError, match=rf"^{key}="):
                snn.create_model(name, **sizes | {key: value})


@pytest.mark.parametrize("form", ["spikformer", "spikingformer", "sdt"])
def test_a_stage_is_pooled_or_not(form):
    name, sizes = FORMS[form]
    for entry in ("a", None, 2, -1, 1.5, float("nan"), (), "1"):
        for pool in ((entry, 0, 1, 1), (1, 1, 0, entry)):
            with pytest.raises(ValueError, match=r"^pool=\(.* must be a tuple of 4, each True or "):
                snn.create_model(name, **sizes | {"pool": pool})
    for pool in ((True,) * 3, (True,) * 5, "1111", 1):
        with pytest.raises(ValueError, match=r"^pool=.* must be a tuple of 4"):
            snn.create_model(name, **sizes | {"pool": pool})
    same = [(1, 0, 0, 1), [True, False, False, True], tuple(map(np.bool_, (1, 0, 0, 1)))]
    models = [snn.create_model(name, **sizes | {"pool": pool}) for pool in same]
    assert models[0] == models[1] == models[2]


@pytest.mark.parametrize("form", FAMILY_FORMS)
def test_other_images_and_time_steps_are_possible_or_named(form, lively):
    model, variables, images, _ = small(lively, form)
    side = images.shape[1]
    logits = lambda m, v, *shape: jax.eval_shape(m.apply, v, jnp.zeros(shape)).shape  # noqa: E731
    assert logits(model, variables, 1, side, side, 3) == (1, 3)
    wide, *_ = small(lively, form, image_size=(2 * side, side), time_steps=2)
    fewer = snn.with_time_steps(variables, 2)
    assert logits(wide, fewer, 2, 2 * side, side, 3) == (2, 3)
    assert logits(wide, fewer, 2, 2, 2 * side, side, 3) == (2, 3)  # frames of a recording
    assert logits(model, lively(model, 1), 2, side, side, 1) == (2, 3)
    with pytest.raises(ValueError, match="have 4 time steps, the model 2: resize them with"):
        logits(wide, variables, 2, 2 * side, side, 3)
    for shape in ((2, side, side, 1), (0, side, side, 3), (2, side, 2 * side, 3)):
        with pytest.raises(ValueError, match=r"images must be \[B, "):
            logits(model, variables, *shape)


# ---------------------------------------------------------------- deployment


def schedules(names, time_steps, seed):
    """Random ones, layers without any step, the same steps everywhere; then dense ones and none."""
    rng = np.random.default_rng(seed)
    yield {name: rng.random(time_steps) < 0.4 for name in names}
    yield {name: np.full(time_steps, rng.random() < 0.7) for name in names}
    yield {name: np.arange(time_steps) % 2 == 1 for name in names}
    yield {name: rng.random(time_steps) < 0.9 for name in names}
    yield {name: np.zeros(time_steps, bool) for name in names}


def forms_and_neurons():
    """Every family with every neuron, the other forms of a family with two of them."""
    for form, neuron in itertools.product(FORMS, NEURONS):
        kind, is_family = neuron["kind"], "," not in form
        if is_family or kind in ("lif", "psn"):
            is_quick = kind == "lif" or (is_family and kind == "psn") or form == "spikformer"
            marks = () if is_quick else pytest.mark.slow
            yield pytest.param(
                form, neuron, marks=marks, id=f"{form}-{kind}{neuron.get('reset', '')}"
            )


def check_deployed(lively, form, neuron, *places):
    """The deployed model is the masked one, at some of `schedules`."""
    model, variables, images, names = small(lively, form, "float64", time_steps=3, neuron=neuron)
    masked = jax.jit(lambda v: model.apply(v, images), compiler_options=QUICKLY)
    seed = len(form) + 100 * len(neuron["kind"])
    for chosen in itertools.islice(schedules(names, 3, seed), *places):
        schedule = snn.TimeStepSchedule(chosen)
        expected = masked(snn.with_schedule(variables, schedule))
        deployed = snn.deploy(model, variables, schedule)
        logits = quickly(deployed._function, deployed.weights, jnp.asarray(images))
        np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("form", "neuron"), list(forms_and_neurons()))
def test_deployed_it_is_the_masked_model(form, neuron, lively, x64):
    check_deployed(lively, form, neuron, 3 if neuron["kind"] == "lif" else 1)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_deployed_with_dense_schedules_and_none_it_is_the_masked_model(form, lively, x64):
    check_deployed(lively, form, {"kind": "lif"}, 3, None)


@pytest.mark.parametrize("form", tiers(FORMS, "sdt", "spikingresformer"))
def test_flops_are_halved_with_half_of_the_steps_everywhere(form, lively):
    sizes = WIDE.get(form, {"embed_dim": 64, "depth": 2, "mlp_ratio": 4.0})
    model, variables, _, names = small(lively, form, **sizes)
    whole = snn.deploy(model, variables).flops(4)
    for active in ([1, 1, 0, 0], [0, 1, 0, 1]):
        schedule = snn.TimeStepSchedule(dict.fromkeys(names, tuple(active)))
        assert snn.deploy(model, variables, schedule).flops(4) <= 0.56 * whole


@pytest.mark.parametrize("form", tiers(FAMILY_FORMS, "sdt", "qkformer"))
def test_a_file_needs_no_code_of_the_family(form, lively, tmp_path):
    model, variables, images, names = small(lively, form, time_steps=2)
    schedule = snn.TimeStepSchedule(dict.fromkeys(names, (0, 1)))
    deployed = snn.deploy(model, variables, schedule)
    deployed.save(tmp_path / "model.snn")
    loaded = snn.load_deployed(tmp_path / "model.snn")
    np.testing.assert_allclose(loaded(images), deployed(images), rtol=1e-6, atol=1e-6)
    assert loaded.about["family"] == form


# ---------------------------------------------------------------- evaluation


@pytest.mark.parametrize("form", tiers(FAMILY_FORMS, "spikformer", "sdt", "spikingresformer"))
def test_running_logits_are_those_of_models_that_stop_earlier(form, lively):
    model, variables, images, names = small(lively, form)
    rng = np.random.default_rng(5)
    schedule = snn.TimeStepSchedule({name: rng.random(4) < 0.8 for name in names})
    variables = snn.with_schedule(variables, schedule)
    running = quickly(lambda v: early_exit.running_logits(model, v, images), variables)
    expected = quickly(model.apply, variables, images)
    np.testing.assert_allclose(running[-1], expected, rtol=1e-5, atol=1e-5)
    scores = {name: s[:2] for name, s in masks.scores(variables["params"]).items()}
    shorter = variables | {"params": masks.replace_scores(variables["params"], scores)}
    half = type(model)(dataclasses.replace(model.config, time_steps=2))
    expected = quickly(half.apply, shorter, images)
    np.testing.assert_allclose(running[1], expected, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- training


def gradient(model, variables, images):
    def loss_fn(params):
        given = variables | {"params": params}
        logits, new = model.apply(given, images, train=True, mutable=["batch_stats"])
        return -jax.nn.log_softmax(logits)[jnp.arange(3), jnp.arange(3)].sum(), new

    return quickly(jax.value_and_grad(loss_fn, has_aux=True), variables["params"])


@pytest.mark.parametrize("form", tiers(FAMILY_FORMS, "spikformer"))
def test_blocks_computed_again_give_the_same_gradients(form, lively, x64):
    settings = TWO_BLOCKS.get(form, {"depth": 2})
    plain = small(lively, form, "float64", time_steps=2, **settings)
    again = type(plain.model)(dataclasses.replace(plain.model.config, remat="block"))
    one, other = (gradient(m, plain.variables, plain.images) for m in (plain.model, again))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), one, other)


@pytest.mark.parametrize("form", tiers(FAMILY_FORMS[1:], "sdt"))
def test_bfloat16_trains_in_parts(form, lively):
    model, variables, images, _ = small(lively, form, time_steps=2)
    model = type(model)(dataclasses.replace(model.config, dtype=jnp.bfloat16))
    procedure = training.Procedure(model, optax.adam(1e-2), Objective(), accumulate=2)
    state = training.state_from_variables(procedure, jax.tree.map(jnp.array, variables))
    batch = {"image": np.tile(images, (4, 1, 1, 1)), "label": np.tile(np.arange(3), 4)}
    losses = []
    for _ in range(100):
        state, values = training.train_step(state, batch, procedure=procedure)
        losses.append(float(np.divide(*jax.device_get(values["loss"]))))
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.7 * losses[0]
    leaves = jax.tree.leaves((state.params, state.batch_stats))
    assert all(leaf.dtype == jnp.float32 and np.isfinite(leaf).all() for leaf in leaves)


@pytest.mark.parametrize("form", FAMILY_FORMS)
def test_every_family_follows_its_relu_twin(form, lively):
    model, variables, images, _ = small(lively, form)
    twin, teacher, *_ = small(lively, form, time_steps=1, neuron={"kind": "relu"})
    distillation = training.distillation.Distillation(twin, 0.5)
    procedure = training.Procedure(model, optax.adam(1e-2), distillation=distillation)
    state = jax.eval_shape(lambda: training.state_from_variables(procedure, variables))
    batch = {"image": images, "label": np.arange(3)}
    step = functools.partial(training.train_step, procedure=procedure)
    after, seen = jax.eval_shape(step, state, batch, teacher)
    assert "teacher_agreement" in seen
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )


@pytest.mark.parametrize("form", FAMILY_FORMS)
def test_branches_are_left_out_at_random_in_training_alone(form, lively):
    settings = TWO_BLOCKS.get(form, {"depth": 2}) | {"drop_path": 0.5, "time_steps": 2}
    model, variables, images, _ = small(lively, form, **settings)

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def train(key):
        rngs = {"drop_path": key}
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)[0]

    one, same, other = (train(jax.random.key(seed)) for seed in (0, 0, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


# ---------------------------------------------------------------- energy


def taps(spikes):
    """Accumulates of a 3x3 convolution to one channel, [T] of spikes [T, B, H, W, C]."""
    *_, H, W, _ = spikes.shape
    padded = np.pad(spikes, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)])
    windows = [padded[:, :, i : i + H, j : j + W] for i in range(3) for j in range(3)]
    return sum(window.sum((1, 2, 3, 4)) for window in windows)


def pooled(spikes):
    """The largest of each 3x3 window, at every other place."""
    padded = np.pad(spikes, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)])
    *_, H, W, _ = spikes.shape
    windows = [padded[:, :, i : i + H : 2, j : j + W : 2] for i in range(3) for j in range(3)]
    return functools.reduce(np.maximum, windows)


def counted(lively, form):
    """(energy report, {layer: spikes [T, B, ...]}, configuration) of a small model."""
    model, variables, images, _ = small(lively, form)
    _, seen = quickly(lambda v: model.apply(v, images, mutable=["spikes"]), variables)
    spikes = {name: np.asarray(s, np.int64) for name, s in snn.spikes(seen).items()}
    report = snn.energy_report(model, variables, images)
    return report, spikes, model.config


def per_step(spikes):
    return spikes.reshape(len(spikes), -1).sum(1)


def assert_counts(report, expected, real):
    assert report.layers.keys() == expected.keys() | set(real)
    for name, accumulates in expected.items():
        np.testing.assert_allclose(3 * report.layers[name].accumulates, accumulates, err_msg=name)
        assert report.layers[name].macs == 0
    assert report.not_spiking == real
    # Nothing but spikes: no convention about integers changes anything.
    assert report.under(integers="multiply").microjoule == report.microjoule


def test_a_spikingformer_counted_by_hand(lively):
    report, spikes, config = counted(lively, "spikingformer")
    D, hidden = config.embed_dim, config.hidden_dim
    expected = {}
    for i, features in enumerate((4, 8, 16, 16), 1):
        fired = spikes[f"patch_embed/block{i}_lif"]
        fed = pooled(fired) if config.pool[i - 1] else fired
        expected[f"patch_embed/block{i}_conv"] = taps(fed) * features
    read = per_step(spikes["block_0/attn/proj_lif"])
    expected |= {f"block_0/attn/{name}_conv": read * D for name in "qkv"}
    q, k, v = (spikes[f"block_0/attn/{name}_lif"].sum((2, 3)) for name in "qkv")
    # 4 tokens of heads of 8 channels: (q kᵀ) v, rows of 4 additions.
    expected["block_0/attn/product"] = 4 * (np.minimum(q, k) + v).sum(1)
    expected["block_0/attn/proj_conv"] = per_step(spikes["block_0/attn/attn_lif"]) * D
    expected["block_0/mlp/mlp1_conv"] = per_step(spikes["block_0/mlp/mlp1_lif"]) * hidden
    expected["block_0/mlp/mlp2_conv"] = per_step(spikes["block_0/mlp/mlp2_lif"]) * D
    assert_counts(report, expected, ["patch_embed/block0_conv", "head"])


def test_a_spike_driven_transformer_counted_by_hand(lively):
    report, spikes, config = counted(lively, "sdt")
    D, hidden = config.embed_dim, config.hidden_dim
    expected, names = {}, ("proj_conv1", "proj_conv2", "proj_conv3", "rpe_conv")
    for i, (name, features) in enumerate(zip(names, (4, 8, 16, 16), strict=True)):
        fired = spikes[f"patch_embed/proj_lif{i or ''}"]
        fed = pooled(fired) if config.pool[i] and i < 3 else fired
        expected[f"patch_embed/{name}"] = taps(fed) * features
    read = per_step(spikes["block_0/attn/shortcut_lif"])
    expected |= {f"block_0/attn/{name}_conv": read * D for name in "qkv"}
    q, k, v = (spikes[f"block_0/attn/{name}_lif"] for name in "qkv")
    gated = q * spikes["block_0/attn/talking_heads_lif"]
    expected["block_0/attn/token_sum"] = per_step(k * v)
    expected["block_0/attn/gate"] = per_step(gated)
    expected["block_0/attn/proj_conv"] = per_step(gated) * D
    expected["block_0/mlp/fc1_conv"] = per_step(spikes["block_0/mlp/fc1_lif"]) * hidden
    expected["block_0/mlp/fc2_conv"] = per_step(spikes["block_0/mlp/fc2_lif"]) * D
    expected["head"] = per_step(spikes["head_lif"]) * 3
    assert_counts(report, expected, ["patch_embed/proj_conv"])


# ---------------------------------------------------------------- published figures


def at_rate(name, rate):
    """The accumulates by the published formulas, {layer: of one image}, and the shapes.

    As if every neuron fired at a rate; from shapes alone.
    """
    model = snn.create_model(name, num_classes=1000)
    shapes = energy.model_shapes(model, (*model.config.image_size, 3)).layers
    found = {}
    for layer, shape in shapes.items():
        units = {n: np.full(shape.time_steps, rate * size) for n, size in shape.operands.items()}
        found[layer] = operations.accumulates_by_rate(shape, units).sum()
    return found, shapes


def test_published_counts_of_spikingformer_8_768():
    # The authors' counter: 0.521 GMAC, the first convolution at each of four steps and the head
    # with its 1,000 biases.
    found, shapes = at_rate("spikingformer_8_768_imagenet", 0.25)
    first, head = shapes["patch_embed/block0_conv"], shapes["head"]
    assert (4 * first.macs, first.repeats) == (520_224_768, 4)
    np.testing.assert_allclose(4 * first.macs + head.macs + 1000, 0.521e9, rtol=1e-3)
    # T h N d^2 (min(r_k, r_v) + r_q) of attention; r T times the operations of all else.
    N, D, T = 196, 768, 4
    np.testing.assert_allclose(found["block_0/attn/product"], T * N * D * 96 * 2 * 0.25)
    maps = {f"attn/{name}_conv": N * D * D for name in ("q", "k", "v", "proj")}
    maps |= {"mlp/mlp1_conv": 4 * N * D * D, "mlp/mlp2_conv": 4 * N * D * D}
    for name, operations_of in maps.items():
        np.testing.assert_allclose(found[f"block_7/{name}"], 0.25 * T * operations_of)


def test_published_formulas_of_the_spike_driven_transformer():
    # Its supplement: T R 3 N D^2 for q, k and v, T R N D for attention, where the mask is free.
    N, D, T, R = 196, 512, 4, 0.25
    found, shapes = at_rate("sdt_8_512_imagenet", R)
    block = {n.removeprefix("block_3/"): x for n, x in found.items() if n.startswith("block_3/")}
    qkv = sum(block[f"attn/{name}_conv"] for name in "qkv")
    np.testing.assert_allclose(qkv, T * R * 3 * N * D**2)
    np.testing.assert_allclose(block["attn/token_sum"], T * R * N * D)
    np.testing.assert_allclose(block["attn/gate"], T * R * N * D)
    np.testing.assert_allclose(block["attn/proj_conv"], T * R * N * D**2)
    mlp = block["mlp/fc1_conv"] + block["mlp/fc2_conv"]
    np.testing.assert_allclose(mlp, T * R * 8 * N * D**2)
    assert shapes["patch_embed/proj_conv"].macs == 9 * 3 * 64 * 224**2
    sides = {"proj_conv1": 112, "proj_conv2": 56, "proj_conv3": 28, "rpe_conv": 14}
    channels = {"proj_conv1": 64 * 128, "proj_conv2": 128 * 256, "proj_conv3": 256 * 512}
    for name, side in sides.items():
        operations_of = 9 * side**2 * channels.get(name, 512**2)
        np.testing.assert_allclose(found[f"patch_embed/{name}"], T * R * operations_of)


# ---------------------------------------------------------------- several devices

INTO, OUT_OF = (None, "model"), ("model", None)
ONE_MLP = {"fc1_conv": INTO, "fc2_conv": OUT_OF}
OF_HEADS = {f"{name}_conv": INTO for name in "qkv"} | {"proj_conv": OUT_OF}
CHAINS = {f"{name}_conv_0/body_2_1": INTO for name in "qkv"} | {"proj_conv_0/body_0": OUT_OF}
# Family -> {end of a kernel's name: how it is divided}.
DIVIDED = {
    "spikformer": {f"{name}_linear": INTO for name in ("q", "k", "v", "fc1")}
    | {"proj_linear": OUT_OF, "fc2_linear": OUT_OF},
    "spikingformer": OF_HEADS | {"mlp1_conv": INTO, "mlp2_conv": OUT_OF},
    "sdt": OF_HEADS | ONE_MLP,
    "qkformer": OF_HEADS | {"mlp1_conv": INTO, "mlp2_conv": OUT_OF},
    # Its attention is not: the first stage of the published sizes has one head.
    "spikingresformer": {"up_1": INTO, "conv_0_1": (None, None, *INTO), "down_1": OUT_OF},
    "metaspikeformer": CHAINS
    | ONE_MLP
    | {"pwconv1": INTO, "dwconv": (None, None, *INTO), "pwconv2": OUT_OF}
    | {"conv1": (None, None, *INTO), "conv2": (None, None, *OUT_OF)},
}


@pytest.mark.parametrize("form", FAMILY_FORMS)
def test_tensor_parallelism_splits_heads_and_hidden_channels(form):
    name, sizes = FORMS[form]
    model = snn.create_model(name, **sizes)
    images = jnp.zeros((1, *model.config.image_size, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    mesh = jax.sharding.AbstractMesh((1, 2), ("data", "model"))
    placement = Placement(mesh, "tensor", ALL[form].tensor_rules)
    check_model(model.config, placement, ALL[form].divided)
    placed = jax.tree_util.tree_leaves_with_path(placement.shardings(params))
    split = {
        jax.tree_util.keystr(path, simple=True, separator="/"): (tuple(place.spec), place)
        for path, place in placed
        if place.spec != PartitionSpec()
    }
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    for path, (_, place) in split.items():
        place.shard_shape(shapes[path])  # raises for what cannot be divided
    kernels = {path.removesuffix("/kernel"): spec for path, (spec, _) in split.items()}
    kernels = {path: spec for path, spec in kernels.items() if f"{path}/kernel" in split}
    found = {end: {s for p, s in kernels.items() if p.endswith(f"/{end}")} for end in DIVIDED[form]}
    assert found == {end: {spec} for end, spec in DIVIDED[form].items()}
    assert all(path.endswith(tuple(DIVIDED[form])) for path in kernels)
