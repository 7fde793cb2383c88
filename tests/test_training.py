import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import snnvit_jax as snn
from snnvit_jax import energy, evaluation, training
from snnvit_jax.data import sources
from snnvit_jax.deployment import planning
from snnvit_jax.evaluation import metrics
from snnvit_jax.neurons import recording
from snnvit_jax.runs import config as config_lib
from snnvit_jax.time_steps import masks
from snnvit_jax.training import gaps, nonfinite, optimizer
from snnvit_jax.training import step as step_lib
from snnvit_jax.training.mixing import Mixing
from snnvit_jax.training.objective import Objective

LABELS = np.array([0, 1, 2])


@pytest.fixture(scope="module")
def settings():
    return config_lib.default_config().optimizer


def make_state(tiny, procedure):
    variables = jax.tree.map(jnp.array, tiny.variables)  # a copy: steps donate their state
    state = training.state_from_variables(procedure, variables)
    return state.replace(penalty_weight=jnp.float32(0))


def take_steps(tiny, transformation, objective, count, batch=None, **options):
    procedure = training.Procedure(tiny.model, transformation, objective, **options)
    state, seen = make_state(tiny, procedure), []
    for _ in range(count):
        state, values = training.train_step(
            state, batch or {"image": tiny.images, "label": LABELS}, procedure=procedure
        )
        seen.append(metrics.means(jax.device_get(values)))
    return state, seen


@pytest.fixture(scope="module")
def adamw(settings):
    return optimizer.create_optimizer(settings, lambda step: 1e-2)


def test_training_lowers_the_loss_and_counts_steps(tiny, adamw):
    state, seen = take_steps(tiny, adamw, Objective(), 12)
    assert seen[-1]["loss"] < 0.7 * seen[0]["loss"]
    assert int(state.step) == 12
    assert seen[0]["average_time_steps"] == 4


def test_reported_loss_is_the_smoothed_cross_entropy(tiny, adamw):
    _, seen = take_steps(tiny, adamw, Objective(label_smoothing=0.3), 1)
    logits, _ = tiny.model.apply(tiny.variables, tiny.images, train=True, mutable=["batch_stats"])
    targets = 0.7 * np.eye(3)[LABELS] + 0.1
    expected = -np.mean(np.sum(targets * np.asarray(jax.nn.log_softmax(logits)), axis=1))
    np.testing.assert_allclose(seen[0]["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("start", "freeze", "moving"),
    [(0, None, [0, 1, 2, 3]), (2, None, [2, 3]), (0, 0, []), (1, 3, [1, 2])],
)
def test_scores_move_only_in_their_phase(tiny, start, freeze, moving):
    objective = Objective(start_step=start, freeze_step=freeze)
    old = tiny.variables["params"]
    new = jax.tree.map(lambda leaf: leaf - 0.1, old)
    for step in range(4):
        settled = step_lib._settle_scores(old, new, step, objective)
        for name, score in masks.scores(settled).items():
            expected = (new if step in moving else old, name)
            np.testing.assert_array_equal(score, masks.scores(expected[0])[name])
        # Weights learn whatever the scores do.
        np.testing.assert_array_equal(settled["head"]["kernel"], new["head"]["kernel"])


def test_scores_that_may_not_move_are_in_no_norm(tiny):
    def norms(freeze, penalty):
        objective = Objective(freeze_step=freeze, time_step_penalty=penalty)
        procedure = training.Procedure(tiny.model, optax.sgd(1.0), objective)
        state = make_state(tiny, procedure).replace(penalty_weight=jnp.float32(penalty))
        batch = {"image": tiny.images, "label": LABELS}
        seen = metrics.means(training.train_step(state, batch, procedure=procedure)[1])
        return float(seen["gradient_norm"]), float(seen["update_norm"])

    free = norms(freeze=0, penalty=0.0)
    np.testing.assert_allclose(norms(freeze=0, penalty=1e3), free, rtol=1e-5)
    assert min(norms(freeze=None, penalty=1e3)) > 2 * max(free)


@pytest.mark.parametrize("target", [1.0, 2.5])
def test_the_penalty_leads_to_the_target_and_not_below(tiny, target):
    # No weight learns, so that nothing but the penalty moves the scores far.
    transformation = optax.masked(optax.set_to_zero(), lambda p: _without_scores(p))
    transformation = optax.chain(optax.sign_sgd(0.03), transformation)
    objective = Objective(
        time_step_penalty=1e4, target_time_steps=target, anneal_steps=20, patience_steps=10
    )
    state, _ = take_steps(tiny, transformation, objective, 60)
    layers = len(masks.scores(state.params))
    average = snn.TimeStepSchedule.from_variables({"params": state.params}).average
    assert np.floor(target * layers) / layers <= average <= target + 0.25


def _without_scores(params):
    return jax.tree_util.tree_map_with_path(lambda p, _: p[-1].key != masks.SCORE, params)


def test_the_weight_of_the_penalty_grows_with_the_excess(tiny, adamw):
    objective = Objective(time_step_penalty=3.0, target_time_steps=1.0, patience_steps=10)
    state = make_state(tiny, training.Procedure(tiny.model, adamw)).replace(
        penalty_weight=jnp.float32(2.0)
    )
    # Four active steps where one is allowed: an excess of 3 for one of 10 steps.
    np.testing.assert_allclose(objective.next_penalty_weight(state, 4), 2.0 + 3.0 * 3 / 10)
    below = masks.replace_scores(
        state.params,
        {name: jnp.array([1.0, -1, -1, -1]) for name in masks.scores(state.params)},
    )
    objective = dataclasses.replace(objective, target_time_steps=2.0)
    np.testing.assert_allclose(
        objective.next_penalty_weight(state.replace(params=below), 4), 2.0 - 3.0 / 10
    )
    objective = dataclasses.replace(objective, start_step=5)
    assert objective.next_penalty_weight(state, 4) == 2.0


@pytest.mark.parametrize(("target", "weight"), [(None, 3.0), (2.0, 0.0)])
def test_the_penalty_starts_at_its_weight_unless_it_grows_to_a_target(tiny, adamw, target, weight):
    objective = Objective(time_step_penalty=3.0, target_time_steps=target)
    procedure = training.Procedure(tiny.model, adamw, objective)
    assert training.state_from_variables(procedure, tiny.variables).penalty_weight == weight


def test_the_floor_is_the_budget_unless_there_were_fewer_steps_before(tiny):
    objective = Objective(target_time_steps=1.0, start_step=10, anneal_steps=20)
    params = tiny.variables["params"]
    assert [float(objective.floor(params, step)) for step in (0, 15, 20, 30)] == [4, 3.25, 2.5, 1]
    fewer = snn.with_schedule(
        tiny.variables,
        snn.TimeStepSchedule({name: [1, 0, 1, 0] for name in masks.scores(params)}),
    )["params"]
    assert [float(objective.floor(fewer, step)) for step in (0, 15, 25)] == [2, 2, 1.75]
    dropped = dataclasses.replace(objective, target_time_steps=3.0)
    assert float(dropped.floor(fewer, 30)) == 3
    assert Objective().floor(params, 0) is None


def test_scores_that_cross_zero_together_cost_only_what_the_budget_allows(tiny):
    # One update pushes every score far below zero; the budget is down by a tenth of the way.
    transformation = optax.masked(optax.set_to_zero(), lambda p: _without_scores(p))
    transformation = optax.chain(optax.sign_sgd(10.0), transformation)
    objective = Objective(
        time_step_penalty=1e4, target_time_steps=2.0, anneal_steps=20, patience_steps=1
    )
    layers = len(masks.scores(tiny.variables["params"]))
    for steps, budget in ((3, 3.8), (12, 2.9), (30, 2.0)):
        state, _ = take_steps(tiny, transformation, objective, steps)
        average = snn.TimeStepSchedule.from_variables({"params": state.params}).average
        assert abs(average - budget) <= 1 / layers, steps


def layers_of(tiny):
    return planning.forward_order(tiny.model, tiny.images.shape[1:])


@pytest.mark.parametrize(
    ("place", "where"),
    [
        ("pixel", "the activations of patch_embed/proj_bn and whatever follows from them"),
        ("head", "the gradient from head backwards"),
    ],
)
def test_a_step_that_is_not_finite_is_taken_back_and_named(tiny, adamw, place, where):
    procedure = training.Procedure(tiny.model, adamw, Objective(), average_decay=0.9)
    state, images = make_state(tiny, procedure), np.array(tiny.images)
    if place == "pixel":
        images[1, 2, 3, 0] = np.inf
    else:
        state = state.replace(params=jax.tree.map(jnp.copy, state.params))
        state.params["head"]["kernel"] = jnp.full_like(state.params["head"]["kernel"], 3e38)
    before = jax.device_get(state)
    state, seen = training.train_step(
        state, {"image": images, "label": LABELS}, procedure=procedure
    )
    flags = seen["not_finite"][0] > 0
    assert nonfinite.describe(flags, state, layers_of(tiny)) == where
    assert (int(state.step), int(state.skipped)) == (1, 1)
    expected = before.replace(step=before.step + 1, skipped=before.skipped + 1)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), expected)


@pytest.mark.parametrize("skipped", [0, 3])
def test_the_rate_applied_after_steps_taken_back_is_that_of_the_step(tiny, settings, skipped):
    def rate(step):
        return 1e-3 * (step + 1)

    transformation = optimizer.create_optimizer(settings, rate)
    procedure = training.Procedure(tiny.model, transformation, Objective())
    state = make_state(tiny, procedure)
    bad = {"image": np.full_like(tiny.images, np.nan), "label": LABELS}
    for _ in range(skipped):
        state, _ = training.train_step(state, bad, procedure=procedure)
    before = np.array(state.params["head"]["bias"])
    state, _ = training.train_step(
        state, {"image": tiny.images, "label": LABELS}, procedure=procedure
    )
    assert (int(state.step), int(state.skipped)) == (skipped + 1, skipped)
    # Adam's first update is the rate itself, in the direction of the gradient's sign.
    moved = np.abs(state.params["head"]["bias"] - before)
    np.testing.assert_allclose(moved, rate(skipped), rtol=1e-3)


def test_the_first_layer_in_the_order_of_the_computation_is_named(tiny):
    state = types.SimpleNamespace(**tiny.variables)
    paths, _ = jax.tree_util.tree_flatten_with_path((state.params, state.batch_stats))
    names = ["/".join([str(path[0].idx), *(key.key for key in path[1:])]) for path, _ in paths]

    def described(*bad):
        flags = [any(name.startswith(x) for x in bad) for name in names]
        assert any(flags)
        return nonfinite.describe(flags, state, layers_of(tiny))

    # Alphabetical order would name the block before the patch embedding.
    assert "of patch_embed/rpe_bn" in described("0", "1/block_0", "1/patch_embed/rpe_bn")
    assert "from block_0/mlp/fc1_bn" in described("0/patch_embed", "0/block_0/mlp/fc1_bn")
    assert "from head" in described("0")


def test_eval_step_leaves_padding_out(tiny):
    padded = np.concatenate([tiny.images, 100 + tiny.images])
    batch = {"image": padded, "label": np.array([0, 1, 2, 0, 0, 0]), "mask": np.arange(6) < 3}
    plain = {"image": tiny.images, "label": LABELS, "mask": np.ones(3, bool)}
    a, b = (evaluation.eval_step(tiny.variables, x, model=tiny.model) for x in (batch, plain))
    np.testing.assert_array_equal(a["confusion"], b["confusion"])
    means = [metrics.means(jax.device_get(x["metrics"])) for x in (a, b)]
    for key in means[0]:
        np.testing.assert_allclose(means[0][key], means[1][key], rtol=1e-5, err_msg=key)
    counts = [energy.decode(x["operations"]) for x in (a, b)]
    jax.tree.map(np.testing.assert_array_equal, *counts)


def test_eval_step_agrees_with_the_recorded_spikes(tiny):
    batch = {"image": tiny.images, "label": LABELS, "mask": np.ones(3, bool)}
    seen = evaluation.eval_step(tiny.variables, batch, model=tiny.model)
    logits, recorded = tiny.model.apply(tiny.variables, tiny.images, mutable=["spikes"])
    counts = energy.decode(seen["operations"])["active"]
    for name, spikes in recording.spikes(recorded).items():
        np.testing.assert_array_equal(counts[name], np.asarray(spikes).reshape(4, -1).sum(1))
    predictions = np.argmax(logits, -1)
    expected = np.zeros((3, 3))
    np.add.at(expected, (LABELS, predictions), 1)
    np.testing.assert_array_equal(seen["confusion"], expected)


def test_a_split_without_examples_cannot_be_evaluated():
    source = sources.Source([], ("ant", "bee"), "test")
    with pytest.raises(ValueError, match="'test' holds no examples to evaluate"):
        evaluation.evaluate(None, {"params": {}}, source, None, None, mesh=None)


def test_metrics_are_exact_on_uneven_batches():
    values = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    parts = [{"x": (part.sum(), part.size)} for part in (values[:4], values[4:])]
    assert metrics.means(metrics.merge(*parts)) == {"x": values.mean()}
    with pytest.raises(ValueError, match=r"no examples were counted for \['y'\]"):
        metrics.means({"x": (1.0, 1), "y": (0.0, 0)})


def test_the_state_is_donated(tiny, adamw):
    procedure = training.Procedure(tiny.model, adamw, Objective())
    state = make_state(tiny, procedure)
    training.train_step(state, {"image": tiny.images, "label": LABELS}, procedure=procedure)
    assert state.params["head"]["kernel"].is_deleted()


def test_bfloat16_training_keeps_float32_parameters(tiny, settings):
    config = dataclasses.replace(tiny.model.config, dtype=jnp.dtype("bfloat16"))
    low = tiny._replace(model=type(tiny.model)(config))
    transformation = optimizer.create_optimizer(settings, optax.constant_schedule(1e-3))
    state, seen = take_steps(low, transformation, Objective(), 2)
    assert np.isfinite(seen[-1]["loss"])
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))


def test_gaps_do_not_count_in_the_loss(tiny, adamw):
    gaps = {"image": tiny.images, "label": LABELS, "mask": np.array([True, False, True])}
    _, seen = take_steps(tiny, adamw, Objective(label_smoothing=0.3), 1, gaps)
    images = tiny.images[[0, 0, 2]]  # a copy of the first in place of the gap
    logits, _ = tiny.model.apply(tiny.variables, images, train=True, mutable=["batch_stats"])
    targets = 0.7 * np.eye(3)[LABELS] + 0.1
    losses = -np.sum(targets * np.asarray(jax.nn.log_softmax(logits)), axis=1)
    np.testing.assert_allclose(seen[0]["loss"], losses[[0, 2]].mean(), rtol=1e-5)


GAP = np.array([True, False, True])


def expected_after_a_gap(tiny, rate):
    """Parameters after a step of plain gradient descent on the first and last image alone.

    The second is a gap: the first one stands there, and counts in the statistics only.
    """
    images, labels = tiny.images[[0, 0, 2]], LABELS[[0, 0, 2]]

    def loss(params):
        variables = {"params": params, "batch_stats": tiny.variables["batch_stats"]}
        logits, new = tiny.model.apply(variables, images, train=True, mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses[jnp.array([0, 2])]), new["batch_stats"]

    params = tiny.variables["params"]
    gradients, batch_stats = jax.jit(jax.grad(loss, has_aux=True))(params)
    return jax.tree.map(lambda p, g: p - rate * g, params, gradients), batch_stats


def test_a_gap_leaves_the_mean_gradient_and_the_statistics_of_the_real_images(tiny):
    batch = {"image": tiny.images, "label": LABELS, "mask": GAP}
    state, _ = take_steps(tiny, optax.sgd(0.1), Objective(freeze_step=0), 1, batch)
    params, batch_stats = expected_after_a_gap(tiny, 0.1)
    params = masks.replace_scores(params, masks.scores(tiny.variables["params"]))
    moved = optax.global_norm(jax.tree.map(jnp.subtract, params, tiny.variables["params"]))
    # A weight of 2 / 3 in place of 1 would be an error of a third of what was moved.
    error = optax.global_norm(jax.tree.map(jnp.subtract, state.params, params))
    assert error < 1e-3 * moved
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, state.batch_stats, batch_stats)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_nothing_that_stands_at_a_gap_has_an_effect(tiny, adamw, accumulate):
    options = {"mixing": Mixing(mixup_alpha=1.0, cutmix_alpha=1.0), "accumulate": accumulate}
    objective = Objective(label_smoothing=0.1)
    found = []
    for junk, label in ((0.0, 0), (np.nan, 2), (1e30, -5)):
        images, labels = np.array(tiny.images), np.array(LABELS)
        images[1], labels[1] = junk, label
        batch = {"image": images, "label": labels, "mask": GAP}
        found.append(take_steps(tiny, adamw, objective, 3, batch, **options))
    assert int(found[0][0].skipped) == 0
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, other, found[0])


def test_a_batch_of_gaps_alone_changes_nothing(tiny, adamw):
    batch = {"image": tiny.images, "label": LABELS, "mask": np.zeros(3, bool)}
    procedure = training.Procedure(tiny.model, adamw, Objective())
    state, _ = training.train_step(make_state(tiny, procedure), batch, procedure=procedure)
    assert (int(state.step), int(state.skipped)) == (1, 1)
    jax.tree.map(np.testing.assert_array_equal, state.variables, tiny.variables)


@given(st.lists(st.booleans(), min_size=1, max_size=9).filter(any))
def test_gaps_are_filled_with_real_examples_and_weigh_nothing(mask):
    mask = np.array(mask)
    place = np.arange(len(mask))
    filled = gaps.fill({"image": place * 1.0, "label": place, "mask": mask})
    assert set(np.asarray(filled["label"]).tolist()) == set(place[mask].tolist())
    np.testing.assert_array_equal(filled["label"][mask], place[mask])
    np.testing.assert_array_equal(filled["image"], filled["label"])
    np.testing.assert_array_equal(filled["mask"], mask)
    weights = gaps.weights(jnp.asarray(mask))
    losses = np.random.default_rng(0).normal(size=len(mask))
    np.testing.assert_allclose(np.mean(losses * weights), losses[mask].mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("count", "accumulate"), [(1, 1), (3, 1), (3, 3)])
def test_odd_batches_and_single_images_can_be_mixed(tiny, adamw, count, accumulate):
    batch = {"image": tiny.images[:count], "label": LABELS[:count]}
    mixing = Mixing(mixup_alpha=1.0, cutmix_alpha=1.0)
    mixed, plain = (
        take_steps(tiny, adamw, Objective(), 2, batch, accumulate=accumulate, mixing=m)[0]
        for m in (mixing, Mixing())
    )
    assert (int(mixed.step), int(mixed.skipped)) == (2, 0)
    same = jax.tree.map(np.array_equal, mixed.params, plain.params)
    assert all(jax.tree.leaves(same)) == (count == 1)  # a single image is mixed with itself


def test_training_of_scores_moves_nothing_else(tiny, settings):
    transformation = optimizer.create_optimizer(settings, lambda step: 1e-2, "scores")
    config = dataclasses.replace(tiny.model.config, drop_path=0.5, depth=1)
    tiny = tiny._replace(model=type(tiny.model)(config))
    state, seen = take_steps(
        tiny,
        transformation,
        Objective(time_step_penalty=1.0, spike_prices=(("block_0/mlp/fc1_lif", 1e-3),)),
        3,
        trainable="scores",
        average_decay=0.9,
        mixing=Mixing(mixup_alpha=0.5),
    )
    assert np.isfinite(seen[-1]["loss"])
    before, after = tiny.variables, state.variables
    changed = masks.scores(after["params"])
    for name, score in masks.scores(before["params"]).items():
        assert not np.array_equal(score, changed[name]), name
    expected = before | {"params": masks.replace_scores(before["params"], changed)}
    jax.tree.map(np.testing.assert_array_equal, after, expected)
    jax.tree.map(np.testing.assert_array_equal, state.average, expected)


def test_scores_are_trained_in_the_network_of_inference(tiny):
    transformation = optax.chain(optax.sgd(0.1), optax.masked(optax.set_to_zero(), _without_scores))
    state, seen = take_steps(tiny, transformation, Objective(), 1, trainable="scores")
    logits = tiny.model.apply(tiny.variables, tiny.images)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
    np.testing.assert_allclose(seen[0]["loss"], losses.mean(), rtol=1e-5)

    def loss(params):
        logits = tiny.model.apply(tiny.variables | {"params": params}, tiny.images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

    gradients = masks.scores(jax.jit(jax.grad(loss))(tiny.variables["params"]))
    for name, score in masks.scores(tiny.variables["params"]).items():
        np.testing.assert_allclose(
            masks.scores(state.params)[name], score - 0.1 * gradients[name], atol=1e-5
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [("trainable", "head"), ("accumulate", 0), ("average_decay", 1.0), ("average_decay", np.nan)],
)
def test_values_of_a_procedure_that_do_not_fit_are_named(tiny, adamw, name, value):
    with pytest.raises(ValueError) as error:
        training.Procedure(tiny.model, adamw, **{name: value})
    assert str(error.value).startswith(f"{name}={value!r} must be ")


def test_parts_of_a_batch_add_up_to_the_whole(tiny):
    # Each image twice, side by side: both parts have the statistics of the whole batch.
    batch = {"image": np.repeat(tiny.images, 2, axis=0), "label": np.repeat(LABELS, 2)}
    batch["mask"] = np.array([True, True, True, True, True, False])
    whole, seen = take_steps(tiny, optax.sgd(0.1), Objective(), 1, batch)
    parts, seen_in_parts = take_steps(
        tiny, optax.sgd(0.1), Objective(), 1, batch, accumulate=2, average_decay=0.75
    )
    for a, b in zip(*(jax.tree.leaves(s.params) for s in (whole, parts)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen[0]["loss"], seen_in_parts[0]["loss"], rtol=1e-5)
    # The average after one step, with a decay of 1 / 10; its scores are the present ones.
    assert parts.eval_variables is parts.average
    head = [tree["head"]["kernel"] for tree in (tiny.variables["params"], parts.params)]
    np.testing.assert_allclose(
        parts.average["params"]["head"]["kernel"], 0.1 * head[0] + 0.9 * head[1], rtol=1e-5
    )
    present, averaged = (masks.scores(p) for p in (parts.params, parts.average["params"]))
    jax.tree.map(np.testing.assert_array_equal, present, averaged)


def test_an_epoch_with_the_penalty_alone_leads_to_the_minimum(tiny):
    transformation = optax.chain(
        optax.sign_sgd(0.05), optax.masked(optax.set_to_zero(), _without_scores)
    )
    procedure = training.Procedure(
        tiny.model, transformation, Objective(time_step_penalty=1e4, min_time_steps=2)
    )
    state = training.state_from_variables(procedure, jax.tree.map(jnp.array, tiny.variables))
    # A restored state may come from a run with another penalty: the present one counts.
    state = state.replace(penalty_weight=jnp.float32(0))
    for _ in range(30):
        state, _ = training.train_step(
            state, {"image": tiny.images, "label": LABELS}, procedure=procedure
        )
    assert state.penalty_weight == 1e4
    assert set(snn.TimeStepSchedule.from_variables(state.variables).layers.values()) == {2}
