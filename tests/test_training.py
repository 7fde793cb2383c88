import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import snnvit_jax as snn
from snnvit_jax import config as config_lib
from snnvit_jax import energy, metrics, optimizer, recording, timesteps, training

LABELS = np.array([0, 1, 2])


@pytest.fixture(scope="module")
def settings():
    return config_lib.default_config().optimizer


def make_state(tiny, transformation):
    variables = jax.tree.map(jnp.array, tiny.variables)  # a copy: steps donate their state
    params = variables["params"]
    return training.TrainState(
        jnp.zeros((), jnp.int32),
        params,
        variables["batch_stats"],
        transformation.init(params),
        jnp.float32(0),
    )


def take_steps(tiny, transformation, objective, count):
    state, seen = make_state(tiny, transformation), []
    batch = {"image": tiny.images, "label": LABELS}
    for _ in range(count):
        state, values = training.train_step(
            state, batch, model=tiny.model, optimizer=transformation, objective=objective
        )
        seen.append(metrics.means(jax.device_get(values)))
    return state, seen


@pytest.fixture(scope="module")
def adamw(settings):
    return optimizer.create_optimizer(settings, lambda step: 1e-2)


def test_training_lowers_the_loss_and_counts_steps(tiny, adamw):
    state, seen = take_steps(tiny, adamw, training.Objective(), 12)
    assert seen[-1]["loss"] < 0.7 * seen[0]["loss"]
    assert int(state.step) == 12
    assert seen[0]["average_time_steps"] == 4


def test_reported_loss_is_the_smoothed_cross_entropy(tiny, adamw):
    _, seen = take_steps(tiny, adamw, training.Objective(label_smoothing=0.3), 1)
    logits, _ = tiny.model.apply(tiny.variables, tiny.images, train=True, mutable=["batch_stats"])
    targets = 0.7 * np.eye(3)[LABELS] + 0.1
    expected = -np.mean(np.sum(targets * np.asarray(jax.nn.log_softmax(logits)), axis=1))
    np.testing.assert_allclose(seen[0]["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("start", "freeze", "moves"), [(0, None, True), (3, None, False), (0, 0, False), (0, 2, True)]
)
def test_scores_move_only_in_their_phase(tiny, adamw, start, freeze, moves):
    objective = training.Objective(start_step=start, freeze_step=freeze)
    state, _ = take_steps(tiny, adamw, objective, 2)
    before, after = (timesteps.scores(p) for p in (tiny.variables["params"], state.params))
    changed = any(not np.array_equal(before[name], after[name]) for name in before)
    assert changed == moves


def test_weights_learn_whatever_the_scores_do(tiny, adamw):
    state, _ = take_steps(tiny, adamw, training.Objective(freeze_step=0), 1)
    kernel = state.params["head"]["kernel"]
    assert not np.array_equal(kernel, tiny.variables["params"]["head"]["kernel"])


@pytest.mark.parametrize("target", [1.0, 2.0, 3.5])
def test_the_penalty_leads_to_the_target_and_not_below(tiny, target):
    # No weight learns, so that nothing but the penalty moves the scores far.
    transformation = optax.masked(optax.set_to_zero(), lambda p: _without_scores(p))
    transformation = optax.chain(optax.sign_sgd(0.03), transformation)
    objective = training.Objective(
        time_step_penalty=1e4, target_time_steps=target, anneal_steps=20, patience_steps=10
    )
    state, _ = take_steps(tiny, transformation, objective, 60)
    layers = len(timesteps.scores(state.params))
    average = snn.TimeStepSchedule.from_variables({"params": state.params}).average
    assert np.floor(target * layers) / layers <= average <= target + 0.25


def _without_scores(params):
    return jax.tree_util.tree_map_with_path(lambda p, _: p[-1].key != timesteps.SCORE, params)


def test_the_weight_of_the_penalty_grows_with_the_excess(tiny, adamw):
    objective = training.Objective(time_step_penalty=3.0, target_time_steps=1.0, patience_steps=10)
    state = make_state(tiny, adamw).replace(penalty_weight=jnp.float32(2.0))
    # Four active steps where one is allowed: an excess of 3 for one of 10 steps.
    np.testing.assert_allclose(objective.next_penalty_weight(state, 4), 2.0 + 3.0 * 3 / 10)
    below = timesteps.replace_scores(
        state.params,
        {name: jnp.array([1.0, -1, -1, -1]) for name in timesteps.scores(state.params)},
    )
    objective = dataclasses.replace(objective, target_time_steps=2.0)
    np.testing.assert_allclose(
        objective.next_penalty_weight(state.replace(params=below), 4), 2.0 - 3.0 / 10
    )
    objective = dataclasses.replace(objective, start_step=5)
    assert objective.next_penalty_weight(state, 4) == 2.0


def test_the_budget_comes_down_linearly():
    objective = training.Objective(target_time_steps=1.0, start_step=10, anneal_steps=20)
    assert [float(objective.budget(step, 5)) for step in (0, 10, 15, 20, 30, 99)] == [
        *(5, 5, 4, 3, 1, 1)
    ]
    assert training.Objective().budget(3, 5) is None


def test_eval_step_leaves_padding_out(tiny):
    padded = np.concatenate([tiny.images, 100 + tiny.images])
    batch = {"image": padded, "label": np.array([0, 1, 2, 0, 0, 0]), "mask": np.arange(6) < 3}
    plain = {"image": tiny.images, "label": LABELS, "mask": np.ones(3, bool)}
    a, b = (training.eval_step(tiny.variables, x, model=tiny.model) for x in (batch, plain))
    np.testing.assert_array_equal(a["confusion"], b["confusion"])
    means = [metrics.means(jax.device_get(x["metrics"])) for x in (a, b)]
    for key in means[0]:
        np.testing.assert_allclose(means[0][key], means[1][key], rtol=1e-5, err_msg=key)
    counts = [energy.decode(x["operations"]) for x in (a, b)]
    jax.tree.map(np.testing.assert_array_equal, *counts)


def test_eval_step_agrees_with_the_recorded_spikes(tiny):
    batch = {"image": tiny.images, "label": LABELS, "mask": np.ones(3, bool)}
    seen = training.eval_step(tiny.variables, batch, model=tiny.model)
    logits, recorded = tiny.model.apply(tiny.variables, tiny.images, mutable=["spikes"])
    counts = energy.decode(seen["operations"])["active"]
    for name, spikes in recording.spikes(recorded).items():
        np.testing.assert_array_equal(counts[name], np.asarray(spikes).reshape(4, -1).sum(1))
    predictions = np.argmax(logits, -1)
    expected = np.zeros((3, 3))
    np.add.at(expected, (LABELS, predictions), 1)
    np.testing.assert_array_equal(seen["confusion"], expected)


def test_only_matrices_are_decayed(tiny, settings):
    decaying = optimizer.create_optimizer(settings, lambda step: 1.0)
    params = jax.tree.map(lambda leaf: jnp.ones_like(leaf), tiny.variables["params"])
    updates, _ = decaying.update(
        jax.tree.map(jnp.zeros_like, params), decaying.init(params), params
    )
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        expected = -settings.weight_decay if update.ndim > 1 else 0
        np.testing.assert_allclose(update, expected, atol=1e-7, err_msg=str(path))


def test_scores_move_at_their_own_rate(settings):
    transformation = optimizer.create_optimizer(settings, 0.1)
    params = {"a": {timesteps.SCORE: jnp.zeros(2), "bias": jnp.zeros(2)}}
    gradients = jax.tree.map(lambda _: jnp.array([8.0, -0.5]), params)
    updates, _ = transformation.update(gradients, transformation.init(params), params)
    np.testing.assert_allclose(updates["a"]["bias"], [-0.1, 0.1], rtol=1e-5)
    np.testing.assert_allclose(
        updates["a"][timesteps.SCORE], settings.score_multiplier * updates["a"]["bias"]
    )


def test_learning_rate_warms_up_and_falls(settings):
    rate = optimizer.learning_rate_schedule(settings, epochs=10, steps_per_epoch=100)
    at = [float(rate(step)) for step in (0, 50, 100, 1000)]
    low, high = settings.warmup_learning_rate, settings.learning_rate
    np.testing.assert_allclose(
        at, [low, (low + high) / 2, high, settings.min_learning_rate], rtol=1e-5
    )
    with pytest.raises(ValueError, match="warmup_epochs=1.0 must be fewer than epochs=1"):
        optimizer.learning_rate_schedule(settings, epochs=1, steps_per_epoch=100)


def test_metrics_are_exact_on_uneven_batches():
    values = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    parts = [{"x": (part.sum(), part.size)} for part in (values[:4], values[4:])]
    assert metrics.means(metrics.merge(*parts)) == {"x": values.mean()}
    with pytest.raises(ValueError, match=r"no examples were counted for \['y'\]"):
        metrics.means({"x": (1.0, 1), "y": (0.0, 0)})


def test_the_state_is_donated(tiny, adamw):
    state = make_state(tiny, adamw)
    batch = {"image": tiny.images, "label": LABELS}
    training.train_step(
        state, batch, model=tiny.model, optimizer=adamw, objective=training.Objective()
    )
    assert state.params["head"]["kernel"].is_deleted()


def test_bfloat16_training_keeps_float32_parameters(tiny, settings):
    config = dataclasses.replace(tiny.model.config, dtype=jnp.dtype("bfloat16"))
    low = tiny._replace(model=type(tiny.model)(config))
    transformation = optimizer.create_optimizer(settings, optax.constant_schedule(1e-3))
    state, seen = take_steps(low, transformation, training.Objective(), 2)
    assert np.isfinite(seen[-1]["loss"])
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))
