"""Scores, masks, penalty and projection, each against hand computations."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from hypothesis.extra import numpy as hnp

import snnvit_jax as snn
from snnvit_jax.neurons import LIF, create_neuron, lif_scan
from snnvit_jax.time_steps import masks
from snnvit_jax.time_steps.masks import ESTIMATORS, SCORE

# name -> derivative of the mask, written independently of the library
DERIVATIVES = {
    "identity": np.ones_like,
    "clipped": lambda s: (np.abs(s) <= 0.5).astype(s.dtype),
    "triangle": lambda s: np.where(np.abs(s) < 1, 1 - np.abs(s), 0),
    "sigmoid": lambda s: 4 / (2 + np.exp(4 * s) + np.exp(-4 * s)),
}
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)
SCORES = np.float32([-1.5, -1, -0.75, -0.5, -0.1, 0, 0.1, 0.5, 0.75, 1, 1.5])


def tree(*scores):
    """Parameters of a model whose LIF layers lie at different depths, beside other parameters."""
    names = [("a_lif",), ("block_0", "attn", "q_lif"), ("block_0", "mlp_lif"), ("last_lif",)]
    params = {"head": {"kernel": jnp.full((2, 3), 0.25)}}
    for path, score in zip(names, scores, strict=False):
        inner = params
        for part in path:
            inner = inner.setdefault(part, {})
        inner[SCORE] = jnp.float32(score)
    return params


def score_rows(params):
    """Scores [L, T], layers sorted by name as jax sorts them: the order of `tree`'s arguments."""
    return np.stack([score for _, score in sorted(masks.scores(params).items())])


# ---------------------------------------------------------------- mask


def test_every_estimator_has_a_derivative_here():
    assert set(DERIVATIVES) == set(ESTIMATORS)


@every_estimator
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_mask_is_on_for_positive_scores_only(estimator, dtype):
    mask = masks.binary_mask(jnp.asarray(SCORES, dtype), estimator)
    assert mask.dtype == dtype
    np.testing.assert_array_equal(mask.astype("float32"), [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1])


@every_estimator
def test_mask_gradient_is_exactly_the_estimator(estimator, x64):
    scores = SCORES.astype(np.float64)
    gradient = jax.grad(lambda s: masks.binary_mask(s, estimator).sum())(scores)
    np.testing.assert_allclose(gradient, DERIVATIVES[estimator](scores), rtol=1e-12)


def test_unknown_estimator_is_named():
    with pytest.raises(ValueError, match=r"estimator='magic'.*identity"):
        masks.binary_mask(jnp.zeros(3), "magic")


def test_every_estimator_still_moves_a_score_at_the_end_of_its_reach():
    for name, (derivative, reach) in ESTIMATORS.items():
        assert derivative(jnp.float32([-reach, 0, reach])).min() > 0.05, name


def test_one_line_adds_an_estimator(monkeypatch, untrained):
    steep = masks.Estimator(lambda score: jnp.where(jnp.abs(score) < 0.3, 3.0, 0.0), reach=0.25)
    monkeypatch.setitem(ESTIMATORS, "steep", steep)
    score = jnp.float32([-0.4, -0.1, 0.1, 0.4])
    gradient = jax.grad(lambda s: masks.binary_mask(s, "steep").sum())(score)
    np.testing.assert_array_equal(gradient, [0, 3, 3, 0])
    learned = descend(untrained, optax.sgd(1.0), 1, minimum=1, target=3.0, estimator="steep")
    assert np.abs(score_rows(learned)).max() == 0.25
    learned = descend(learned, optax.adam(0.05), 40, minimum=1, estimator="steep")
    assert set((score_rows(learned) > 0).sum(1)) == {1}
    assert create_neuron(estimator="steep").estimator == "steep"


# ---------------------------------------------------------------- a masked layer

T = 5
CURRENT = np.float32(np.random.default_rng(0).normal(0.9, 1.2, (T, 30)))
CURRENT_SPIKES, CURRENT_MEMBRANE = map(np.asarray, lif_scan(CURRENT, return_membrane=True))
UPSTREAM = np.float32(np.random.default_rng(1).normal(size=(T, 30)))
MASKED = np.float32([-0.3, 0.4, -0.9, 0.0, 0.8])  # active at steps 1 and 4


def masked_layer(scores, current, estimator="identity"):
    """Spikes [T, B] that a layer emits for a current [T, B]."""
    layer = LIF(neuron=create_neuron(estimator=estimator))
    emitted = layer.apply({"params": {SCORE: scores}}, jnp.moveaxis(current, 0, 1))
    return jnp.moveaxis(emitted, 0, 1)


@every_estimator
def test_score_gradient_sums_what_reaches_the_unmasked_spikes(estimator):
    gradient = jax.jit(
        jax.grad(lambda scores: jnp.vdot(UPSTREAM, masked_layer(scores, CURRENT, estimator)))
    )(MASKED)
    expected = (UPSTREAM * CURRENT_SPIKES).sum(1) * DERIVATIVES[estimator](MASKED)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)
    assert gradient[0] != 0  # a step that is off still hears whether it should be on


def test_current_gets_no_gradient_through_a_masked_spike():
    of_layer = jax.jit(jax.grad(lambda x: jnp.vdot(UPSTREAM, masked_layer(MASKED, x))))(CURRENT)
    reaching = UPSTREAM * (MASKED > 0)[:, None]
    of_scan = jax.jit(jax.grad(lambda x: jnp.vdot(reaching, lif_scan(x))))(CURRENT)
    np.testing.assert_allclose(of_layer, of_scan, 1e-6, 1e-7)


def test_masked_step_emits_nothing_and_leaves_the_dynamics_alone():
    emitted = np.asarray(masked_layer(MASKED, CURRENT))
    off = MASKED <= 0
    assert CURRENT_SPIKES[off].any()  # else there was nothing to hide
    assert not emitted[off].any()
    np.testing.assert_array_equal(emitted[~off], CURRENT_SPIKES[~off])
    # The layer fires exactly where the unmasked membrane reaches the threshold.
    np.testing.assert_array_equal(emitted, (CURRENT_MEMBRANE >= 1) * (MASKED > 0)[:, None])


def test_mask_keeps_shape_and_dtype_of_the_spikes():
    spikes = jnp.ones((3, 2, 4, 5), "bfloat16")
    emitted = masks.mask_spikes(spikes, jnp.float32([0.5, -0.5, 0.5]))
    assert emitted.shape == spikes.shape
    assert emitted.dtype == spikes.dtype
    np.testing.assert_array_equal(emitted.sum((1, 2, 3)).astype("float32"), [40, 0, 40])


def test_time_may_be_any_axis():
    spikes, score = jnp.ones((2, 3, 4)), jnp.float32([0.5, -0.5, 0.5])
    expected = masks.mask_spikes(spikes, score, axis=1)
    np.testing.assert_array_equal(masks.mask_spikes(spikes, score, axis=-2), expected)
    for axis in (3, -4):
        with pytest.raises(ValueError, match=f"axis {axis} is out of bounds"):
            masks.mask_spikes(spikes, score, axis=axis)


def test_scores_of_other_time_steps_are_named_by_a_layer_alone():
    variables = {"params": {SCORE: masks.initial_scores(4)}}
    with pytest.raises(ValueError, match=r"holds scores \(4,\), .* 2 time steps.*with_time_steps"):
        LIF().apply(variables, jnp.ones((1, 2, 3)))


# ---------------------------------------------------------------- scores of a model


@pytest.mark.parametrize("time_steps", [1, 4, 10])
def test_initial_scores_are_all_active_and_favour_no_later_step(time_steps):
    scores = masks.initial_scores(time_steps)
    assert scores.shape == (time_steps,)
    assert scores.dtype == jnp.float32
    assert (scores > 0).all()
    assert (scores <= 0.5).all()  # where every estimator still has a gradient
    assert (np.diff(scores) <= 0).all()  # a later step is never worth more


def test_scores_are_found_by_layer_name():
    found = masks.scores(tree([1, 2], [3, 4], [5, 6]))
    assert {name: score.tolist() for name, score in found.items()} == {
        "a_lif": [1, 2],
        "block_0/attn/q_lif": [3, 4],
        "block_0/mlp_lif": [5, 6],
    }


def test_parameters_without_scores_are_named():
    with pytest.raises(ValueError, match=r"time_step_score.*head"):
        masks.scores(tree())


def test_replacing_scores_leaves_everything_else():
    params = tree([1, 2], [3, 4])
    new = {name: -score for name, score in masks.scores(params).items()}
    replaced = masks.replace_scores(params, new)
    np.testing.assert_array_equal(score_rows(replaced), -score_rows(params))
    assert replaced["head"]["kernel"] is params["head"]["kernel"]
    assert jax.tree.structure(replaced) == jax.tree.structure(params)


# ---------------------------------------------------------------- penalty

ROWS = ([0.5, 0.1, -0.2, 0.9], [-0.5, -0.1, 0.0, 0.3], [0.2, 0.2, 0.2, 0.2])  # 3 + 1 + 4 active


@pytest.mark.parametrize(
    ("target", "expected"),
    [(None, 8 / 12), (0, 8 / 12), (1, 5 / 12), (2.5, 0.5 / 12), (8 / 3, 0), (3.5, 0), (4, 0)],
)
def test_penalty_is_what_exceeds_the_target_relative_to_all_steps(target, expected):
    params = tree(*ROWS)
    assert masks.average_time_steps(params) == pytest.approx(8 / 3)
    assert masks.time_step_penalty(params, target) == pytest.approx(expected, abs=1e-7)


@every_estimator
@pytest.mark.parametrize(("target", "charged"), [(None, 1), (1.5, 1), (3.0, 0)])
def test_penalty_gradient_reaches_scores_by_the_estimator(estimator, target, charged):
    params = tree(*ROWS)
    gradient = jax.grad(masks.time_step_penalty)(params, target, estimator)
    expected = charged * DERIVATIVES[estimator](np.float32(ROWS)) / (3 * 4)
    np.testing.assert_allclose(score_rows(gradient), expected, rtol=1e-5)
    assert not gradient["head"]["kernel"].any()


def test_penalty_is_free_exactly_at_the_target():
    params = tree([0.5, 0.5, -0.5, -0.5], [0.5, 0.5, -0.5, -0.5])
    value, gradient = jax.value_and_grad(masks.time_step_penalty)(params, 2.0)
    assert value == 0
    assert not score_rows(gradient).any()


# ---------------------------------------------------------------- projection

LIFTED = np.float32(masks.LIFTED_SCORE)


def project(rows, *args, **kwargs):
    return score_rows(masks.project_scores(tree(*rows), *args, **kwargs))


@functools.partial(jax.jit, static_argnums=1)
def project_jit(rows, minimum, floor):
    projected = masks.project_scores(tree(*rows), minimum, floor)
    return jnp.stack([score for _, score in sorted(masks.scores(projected).items())])


def best(scores, count):
    """Positions of the highest scores of a vector, the earlier of two equal ones first."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count]


def test_projection_clips_to_one():
    np.testing.assert_array_equal(project([[-3, -1, 0.5, 7]], 0), np.float32([[-1, -1, 0.5, 1]]))


def test_projection_keeps_the_best_steps_of_each_layer():
    rows = [[-0.9, -0.1, -0.5, -0.2], [0.3, -0.4, -0.5, -0.6], [-0.1, 0.2, 0.3, 0.4]]
    expected = [[-0.9, LIFTED, -0.5, LIFTED], [0.3, LIFTED, -0.5, -0.6], [-0.1, 0.2, 0.3, 0.4]]
    np.testing.assert_array_equal(project(rows, 2), np.float32(expected))


def test_projection_prefers_the_earlier_of_equal_steps():
    np.testing.assert_array_equal(project([[-0.5] * 4], 2) > 0, [[1, 1, 0, 0]])


TENTHS = hnp.arrays(np.int8, (3, 4), elements=st.integers(-12, 12))  # with ties, zeros, outliers


@hypothesis.given(tenths=TENTHS, minimum=st.integers(0, 4))
@hypothesis.settings(max_examples=40)
def test_projection_lifts_the_best_of_each_layer_and_nothing_else(tenths, minimum):
    rows = np.float32(tenths) / 10
    expected = np.clip(rows, -1, 1)
    for row in expected:
        kept = best(row, minimum)
        row[kept] = np.maximum(row[kept], LIFTED)
    projected = project(rows, minimum)
    np.testing.assert_array_equal(projected, expected)
    np.testing.assert_array_equal(project(projected, minimum), projected)


@pytest.mark.parametrize(
    ("minimum", "floor", "active"),
    [
        (0, 0, [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        (0, 1, [[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        (0, 1.3, [[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        (1, 1.4, [[1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]),
        (1, 4, [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]),
    ],
)
def test_floor_holds_for_the_model_beside_the_minimum_of_each_layer(minimum, floor, active):
    rows = -np.linspace(0.05, 0.95, 12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(project_jit(rows, minimum, floor) > 0, active)


def test_floor_moves_nothing_while_enough_steps_are_active():
    rows = np.float32(ROWS)  # 8 active
    np.testing.assert_array_equal(project_jit(rows, 0, 8 / 3), rows)
    np.testing.assert_array_equal(project_jit(rows, 1, 1.0), rows)


def expected_active(rows, minimum, floor):
    """The minimum of each layer and what is positive; if too few, the best of the model."""
    kept = np.zeros(rows.shape, bool)
    for layer, row in enumerate(rows):
        kept[layer, best(row, minimum)] = True
    count = int(floor * len(rows) + 1e-6)
    if (kept | (rows > 0)).sum() >= count:
        return kept | (rows > 0)
    # Transposed: the first step of every layer comes before any second one.
    free = np.where(kept, -np.inf, rows).T.ravel()
    for place in best(free, count - kept.sum()):
        kept[place % len(rows), place // len(rows)] = True
    return kept


FLOORS = st.sampled_from([0, 0.5, 1, 4 / 3, 2, 2.9, 4])
MORE_OFF_THAN_ON = hnp.arrays(np.int8, (3, 4), elements=st.integers(-12, 3))


def test_a_floor_of_all_steps_keeps_the_order_of_the_scores():
    projected = masks.project_scores(tree([-0.3, 0.2]), min_time_steps=0, floor=2.0)
    np.testing.assert_allclose(score_rows(projected), [[0.35, 0.85]], rtol=1e-6)


@hypothesis.given(tenths=MORE_OFF_THAN_ON, minimum=st.integers(0, 1), floor=FLOORS)
@hypothesis.settings(max_examples=60)
def test_floor_lifts_no_more_than_needed_and_prefers_the_earlier_of_equals(tenths, minimum, floor):
    rows = np.clip(np.float32(tenths) / 10, -1, 1)
    projected = project_jit(rows, minimum, floor)
    np.testing.assert_array_equal(projected > 0, expected_active(rows, minimum, floor))
    assert np.abs(projected).max() <= 1
    if not minimum:  # a step kept by its layer overtakes better ones of others
        old, new = rows.ravel(), projected.ravel()
        assert (new[:, None] <= new)[old[:, None] < old].all()


@hypothesis.given(tenths=TENTHS, minimum=st.integers(0, 1), floor=FLOORS)
@hypothesis.settings(max_examples=40)
def test_projecting_twice_is_projecting_once(tenths, minimum, floor):
    once = project_jit(np.float32(tenths) / 10, minimum, floor)
    np.testing.assert_allclose(project_jit(once, minimum, floor), once, atol=1e-6)


def test_floor_is_not_lost_to_rounding():
    assert 0.58 * 50 < 29  # in floating point
    spread = -np.linspace(0.1, 0.9, 50, dtype=np.float32)
    params = {f"layer_{i:02d}": {SCORE: score[None]} for i, score in enumerate(spread)}
    projected = jax.jit(masks.project_scores, static_argnums=1)(params, 0, 0.58)
    assert (score_rows(projected) > 0).sum() == 29


# Layers of one schedule: two modules of two and one of three layers, and a layer of its own.
MODULES = ("a/q_lif", "a/k_lif", "b/fc1_lif", "b/fc2_lif", "c/1_lif", "c/2_lif", "c/3_lif", "lif")


def project_modules(rows, minimum, floor, groups="module"):
    flat = {(*name.split("/"), SCORE): row for name, row in zip(MODULES, rows, strict=True)}
    params = traverse_util.unflatten_dict(flat)
    projected = masks.scores(masks.project_scores(params, minimum, floor, groups=groups))
    return np.stack([projected[name] for name in MODULES])


OF_MODULES = hnp.arrays(np.int8, (8, 4), elements=st.integers(-12, 6))


def test_layers_of_a_group_get_the_mean_of_their_scores():
    rows = np.float32([[0.5, -0.5], [-0.1, -0.3], *[[0.2, 0.4]] * 2, *[[0.9, -0.9]] * 3, [0.1, 0]])
    expected = rows.copy()
    expected[:2] = [0.2, -0.4]
    np.testing.assert_allclose(project_modules(rows, 0, None), expected, atol=1e-6)
    np.testing.assert_array_equal(project_modules(rows, 0, None, "layer"), rows)


@hypothesis.given(tenths=OF_MODULES, minimum=st.integers(0, 1), floor=FLOORS)
@hypothesis.settings(max_examples=40)
def test_a_group_gives_steps_up_as_a_whole_and_less_than_one_too_many(tenths, minimum, floor):
    rows = np.float32(tenths) / 10
    free = project_modules(rows, minimum, None) > 0
    projected = project_modules(rows, minimum, floor)
    active = projected > 0
    modules = [masks.module_of(name) for name in MODULES]
    for module in set(modules):
        members = projected[[i for i, name in enumerate(modules) if name == module]]
        assert (members == members[0]).all()
    count = int(floor * len(rows) + 1e-6)
    assert (active | ~free).all()  # what would stay without a floor stays
    assert active.sum() > count - 3  # the largest group has three layers
    if (active != free).any():
        assert active.sum() <= count
    assert (active.sum(1) >= minimum).all()
    np.testing.assert_allclose(project_modules(projected, minimum, floor), projected, atol=1e-6)


def test_projection_leaves_other_parameters():
    params = tree([-2, 2], [0.1, 0.2])
    projected = masks.project_scores(params, 1)
    assert projected["head"]["kernel"] is params["head"]["kernel"]


# ---------------------------------------------------------------- the penalty alone


@pytest.fixture(scope="module")
def untrained(tiny):
    """The scores of an untrained model, as a parameter tree without its other parameters."""
    flat = traverse_util.flatten_dict(tiny.variables["params"])
    return traverse_util.unflatten_dict({p: leaf for p, leaf in flat.items() if p[-1] == SCORE})


def descend(
    params, optimizer, steps, *, minimum, target=None, estimator="identity", groups="layer"
):
    """Minimises nothing but the penalty, as training does: update, then project."""

    @jax.jit
    def step(params, state):
        gradient = jax.grad(masks.time_step_penalty)(params, target, estimator)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return masks.project_scores(params, minimum, target, estimator, groups), state

    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


@pytest.mark.parametrize(
    ("minimum", "estimator"),
    [(0, "identity"), (2, "identity"), *((1, name) for name in ESTIMATORS)],
)
def test_penalty_alone_drives_an_untrained_model_to_the_minimum(untrained, minimum, estimator):
    assert masks.average_time_steps(untrained) == 4
    learned = descend(untrained, optax.adam(0.05), 40, minimum=minimum, estimator=estimator)
    assert set((score_rows(learned) > 0).sum(1)) == {minimum}


@pytest.mark.parametrize(
    ("target", "optimizer"),
    [(1, optax.adam(0.05)), (1.7, optax.sgd(2.0)), (3, optax.adam(0.05))],
)
def test_penalty_alone_stops_at_the_target(untrained, target, optimizer):
    learned = descend(untrained, optimizer, 80, minimum=1, target=target)
    average = float(masks.average_time_steps(learned))
    assert target - 1 / len(score_rows(learned)) < average <= target + 1e-6


@pytest.mark.parametrize("target", [1, 1.7, 3])
def test_penalty_alone_stops_modules_at_the_target_or_less_than_a_step_below(untrained, target):
    learned = descend(untrained, optax.adam(0.05), 80, minimum=1, target=target, groups="module")
    schedule = snn.TimeStepSchedule.from_variables({"params": learned})
    modules = [masks.module_of(name) for name in schedule.masks]
    largest = max(modules.count(name) for name in modules)
    assert largest == 5  # attention
    assert target - largest / len(modules) < schedule.average <= target + 1e-6
    for name, mask in schedule.masks.items():
        first = schedule.masks[list(schedule.masks)[modules.index(masks.module_of(name))]]
        np.testing.assert_array_equal(mask, first)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("time_steps", "settings", "message"),
    [
        (0, {}, "time_steps=0"),
        (-3, {}, "time_steps=-3"),
        (2.5, {}, r"time_steps=2\.5"),
        ("4", {}, "time_steps='4'"),
        (True, {}, "time_steps=True must be a whole number"),
        (4, {"minimum": 0.5}, "min_time_steps=0.5 must be a whole number"),
        (4, {"minimum": -1}, "min_time_steps=-1"),
        (4, {"minimum": 5}, "min_time_steps=5.*time_steps=4"),
        (4, {"target": 4.5}, r"target_time_steps=4\.5.*time_steps=4"),
        (4, {"minimum": 2, "target": 1.5}, r"target_time_steps=1\.5.*min_time_steps=2"),
        (4, {"target": float("nan")}, "target_time_steps=nan"),
        (4, {"target": "x"}, "target_time_steps=x"),
        (4, {"target": True}, "target_time_steps=True"),
    ],
)
def test_numbers_of_time_steps_that_do_not_fit_are_named(time_steps, settings, message):
    with pytest.raises(ValueError, match=message):
        masks.check_time_steps(time_steps, **settings)


@pytest.mark.parametrize("settings", [{}, {"minimum": 0}, {"minimum": 4, "target": 4}])
def test_numbers_of_time_steps_at_their_limits_are_accepted(settings):
    masks.check_time_steps(4, **settings)
    masks.check_time_steps(1, minimum=0, target=0.5)
    masks.check_time_steps(np.int64(4), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"groups": "Layer"}, "groups='Layer' must be one of"), ({"estimator": "tri"}, "estimator")],
)
def test_a_projection_of_another_kind_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        masks.project_scores({"lif": {masks.SCORE: jnp.zeros(4)}}, **settings)
