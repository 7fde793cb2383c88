import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from snnvit_jax import recipes
from snnvit_jax.runs import config as config_lib
from snnvit_jax.time_steps import masks
from snnvit_jax.training import optimizer


@pytest.fixture
def settings():
    return config_lib.default_config().optimizer


PARAMS = {
    "block_0": {
        "q_lif": {masks.SCORE: jnp.ones(2)},
        "q_linear": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    },
    "head": {"kernel": jnp.ones((3, 2))},
}


def updates_of(transformation, gradients=None):
    gradients = jax.tree.map(jnp.zeros_like, PARAMS) if gradients is None else gradients
    return transformation.update(gradients, transformation.init(PARAMS), PARAMS)[0]


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_only_matrices_are_decayed(settings, name):
    settings.name, settings.weight_decay = name, 0.1
    updates = updates_of(optimizer.create_optimizer(settings, lambda step: 1.0))
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        assert bool((update < 0).all()) == (update.ndim > 1), path


def test_scores_move_at_their_own_rate(settings):
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    updates = updates_of(optimizer.create_optimizer(settings, 0.1), gradients)["block_0"]
    np.testing.assert_allclose(updates["q_linear"]["bias"], -0.1, rtol=1e-5)
    np.testing.assert_allclose(
        updates["q_lif"][masks.SCORE], -0.1 * settings.score_multiplier, rtol=1e-5
    )


def test_only_scores_are_trained_if_wanted(settings):
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    updates = updates_of(optimizer.create_optimizer(settings, 0.1, "scores"), gradients)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        assert update.any() == (path[-1].key == masks.SCORE), path


@pytest.mark.parametrize("trainable", ["all", "scores"])
def test_gradients_are_clipped_by_the_norm_of_what_is_trained(settings, trainable):
    settings.clip_norm = 1.0
    gradients = jax.tree.map(lambda x: 3 * jnp.ones_like(x), PARAMS)
    transformation = optimizer.create_optimizer(settings, 0.1, trainable)
    _, state = transformation.update(gradients, transformation.init(PARAMS), PARAMS)
    trained = 2 if trainable == "scores" else 2 + 6 + 3 + 6
    mean = state[1].mu["block_0"]["q_lif"][masks.SCORE]  # 1 - 0.9 of the clipped gradient
    np.testing.assert_allclose(mean, 0.1 / np.sqrt(trained), rtol=1e-5)


@pytest.mark.parametrize("learn", [True, False])
def test_scores_that_may_not_move_take_no_part_in_the_norm_of_the_others(settings, learn):
    settings.clip_norm = 1.0
    transformation = optimizer.create_optimizer(settings, 0.1)
    gradients = jax.tree.map(lambda x: 0.05 * jnp.ones_like(x), PARAMS)
    gradients["block_0"]["q_lif"][masks.SCORE] = jnp.float32([30, 0])
    state = transformation.init(PARAMS)
    found = transformation.update(gradients, state, PARAMS, scores_learn=jnp.bool_(learn))
    means = found[1][1].mu
    scale = 1 / np.sqrt(30**2 + 15 * 0.05**2) if learn else 1
    np.testing.assert_allclose(means["head"]["kernel"], 0.1 * 0.05 * scale, rtol=1e-5)
    # Its averages are ready for the step at which they learn, as if they had been alone.
    np.testing.assert_allclose(means["block_0"]["q_lif"][masks.SCORE], [0.1, 0], rtol=1e-4)
    if learn:
        expected = transformation.update(gradients, state, PARAMS)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_multipliers_go_by_the_first_pattern_that_matches(settings):
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    plain = updates_of(optimizer.create_optimizer(settings, 0.1), gradients)
    settings.multipliers = ((r"^block_0/.*kernel", 0.5), ("block_0", 0.1))
    scaled = updates_of(optimizer.create_optimizer(settings, 0.1), gradients)
    ratio = jax.tree.map(lambda a, b: float((a / b).reshape(-1)[0]), scaled, plain)
    np.testing.assert_allclose(ratio["block_0"]["q_linear"]["kernel"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(ratio["block_0"]["q_linear"]["bias"], 0.1, rtol=1e-6)
    np.testing.assert_allclose(ratio["head"]["kernel"], 1.0, rtol=1e-6)


@pytest.mark.parametrize("multipliers", [(("(", 1.0),), (("a", "b"),), (1,), (("a", np.nan),)])
def test_multipliers_that_are_none_are_named(settings, multipliers):
    settings.multipliers = multipliers
    with pytest.raises(ValueError, match=re.escape(f"optimizer.multipliers={multipliers!r}")):
        optimizer.create_optimizer(settings, 0.1)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_the_state_looks_the_same_for_all_settings(settings, name):
    settings.name = name
    expected = jax.eval_shape(optimizer.create_optimizer(settings, lambda step: 1.0).init, PARAMS)
    changes = {
        **{"clip_norm": 1.0, "multipliers": (("head", 0.5),), "score_multiplier": 0.0},
        **{"weight_decay": 0.0, "learning_rate": 1e-2, "schedule": "epoch_cosine"},
    }
    for key, value in changes.items():
        for trainable in ("all", "scores"):
            other = config_lib.default_config().optimizer
            other.update({"name": name, key: value})
            for rate in (0.1, lambda step: 0.1 * step):
                init = optimizer.create_optimizer(other, rate, trainable).init
                assert jax.tree.structure(jax.eval_shape(init, PARAMS)) == jax.tree.structure(
                    expected
                ), (key, trainable)


def test_the_rate_is_that_of_the_step_given(settings):
    transformation = optimizer.create_optimizer(settings, lambda step: 0.01 * (step + 1))
    gradients, state = jax.tree.map(jnp.ones_like, PARAMS), transformation.init(PARAMS)
    for given, applied in ((None, 0.01), (None, 0.02), (9, 0.1), (0, 0.01)):
        updates, state = transformation.update(gradients, state, PARAMS, step=given)
        bias = updates["block_0"]["q_linear"]["bias"]
        np.testing.assert_allclose(bias, -applied, rtol=1e-4)


def test_the_update_is_that_of_optax(settings):
    """What is switched off changes nothing, and what is scaled is scaled after the rate."""
    settings.multipliers, settings.clip_norm = (("head", 0.3),), 2.0
    ours = optimizer.create_optimizer(settings, lambda step: 0.1)
    theirs = optax.chain(
        optax.clip_by_global_norm(2.0),
        optax.adamw(0.1, weight_decay=settings.weight_decay, mask=optimizer._is_decayed),
    )
    factors = {"head": 0.3, "q_lif": settings.score_multiplier, "q_linear": 1.0}
    states, rng = [ours.init(PARAMS), theirs.init(PARAMS)], np.random.default_rng(0)
    for _ in range(3):
        gradients = jax.tree.map(lambda p: jnp.float32(rng.normal(size=p.shape)), PARAMS)
        found, states[0] = ours.update(gradients, states[0], PARAMS)
        expected, states[1] = theirs.update(gradients, states[1], PARAMS)
    for path, update in jax.tree_util.tree_leaves_with_path(expected):
        factor = next(factors[key.key] for key in path if key.key in factors)
        other = found
        for key in path:
            other = other[key.key]
        np.testing.assert_allclose(other, factor * update, rtol=1e-6)


@pytest.mark.parametrize("clip", [False, True])
def test_lamb_scales_what_is_decayed_by_its_trust_ratio(settings, clip):
    settings.weight_decay, settings.trust_clip = 0.1, clip
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    adam = updates_of(optimizer.create_optimizer(settings, 1.0), gradients)
    settings.name = "lamb"
    lamb = updates_of(optimizer.create_optimizer(settings, 1.0), gradients)
    before, after, weights = (x["block_0"]["q_linear"] for x in (adam, lamb, PARAMS))
    np.testing.assert_allclose(after["bias"], before["bias"], rtol=1e-4)
    size = np.linalg.norm(weights["kernel"])
    ratio = size / np.linalg.norm(before["kernel"])
    expected = before["kernel"] * (min(ratio, 1) if clip else ratio)
    np.testing.assert_allclose(after["kernel"], expected, rtol=1e-4)
    # What has no norm yet moves like Adam.
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    transformation = optimizer.create_optimizer(settings, 1.0)
    moved = transformation.update(gradients, transformation.init(zeros), zeros)[0]
    np.testing.assert_allclose(moved["block_0"]["q_linear"]["kernel"], -1, rtol=1e-4)


@pytest.mark.parametrize("size", [0.25, 4.0])
def test_the_norm_of_what_lamb_has_scaled_is_that_of_the_weight(settings, size):
    settings.name, settings.weight_decay, settings.trust_clip = "lamb", size, False
    # Without a gradient the update is the decay alone, as large as `size` times the weight.
    lamb = updates_of(optimizer.create_optimizer(settings, 1.0))["head"]["kernel"]
    small = jax.tree.map(lambda x: x / 8, PARAMS)
    gradients = jax.tree.map(jnp.zeros_like, small)
    transformation = optimizer.create_optimizer(settings, 1.0)
    less = transformation.update(gradients, transformation.init(small), small)[0]["head"]["kernel"]
    np.testing.assert_allclose(lamb, -PARAMS["head"]["kernel"], rtol=1e-6)
    np.testing.assert_allclose(less, -small["head"]["kernel"], rtol=1e-6)


def test_gradients_are_clipped_by_their_global_norm(settings):
    settings.clip_norm = 1.0
    transformation = optimizer.create_optimizer(settings, 0.1)
    state = transformation.init(PARAMS)
    for size in (1e-2, 1e2):
        gradients = jax.tree.map(lambda p, size=size: jnp.full_like(p, size), PARAMS)
        _, state = transformation.update(gradients, state, PARAMS)
    moment = next(leaf for leaf in jax.tree.leaves(state) if leaf.shape == (3, 2))
    count = sum(leaf.size for leaf in jax.tree.leaves(PARAMS))
    np.testing.assert_allclose(moment, 0.1 * (0.9 * 1e-2 + 1 / count**0.5), rtol=1e-4)


def test_learning_rate_warms_up_and_falls(settings):
    rate = optimizer.learning_rate_schedule(settings, epochs=10, steps_per_epoch=100)
    at = [float(rate(step)) for step in (0, 50, 100, 1000)]
    low, high = settings.warmup_learning_rate, settings.learning_rate
    np.testing.assert_allclose(
        at, [low, (low + high) / 2, high, settings.min_learning_rate], rtol=1e-5
    )
    settings.warmup_epochs = 1.0
    with pytest.raises(ValueError, match="warmup_epochs=1.0 must be fewer than epochs=1"):
        optimizer.learning_rate_schedule(settings, epochs=1, steps_per_epoch=100)


@pytest.mark.parametrize("schedule", ["cosine", "epoch_cosine"])
def test_a_schedule_may_begin_later_and_ends_at_its_last_rate(settings, schedule):
    settings.schedule, settings.cooldown = schedule, 0.2
    now, later = (
        optimizer.learning_rate_schedule(settings, epochs=5, steps_per_epoch=7.5, start_step=start)
        for start in (0, 60)
    )
    for step in range(60):
        assert float(later(60 + step)) == float(now(step))
    assert float(later(3)) == float(now(0))
    np.testing.assert_allclose([now(38), now(1000)], settings.min_learning_rate, rtol=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "epoch_cosine"])
@pytest.mark.parametrize("epochs", [1e-3, 0.05, 0.5, 3.3])
def test_a_schedule_may_be_as_short_as_one_step(settings, schedule, epochs):
    settings.schedule = schedule
    rate = optimizer.learning_rate_schedule(settings, epochs, steps_per_epoch=7.5)
    for step in range(30):
        assert settings.min_learning_rate <= rate(step) <= settings.learning_rate * (1 + 1e-6)


def test_the_published_schedule_epoch_by_epoch():
    config = config_lib.default_config()
    recipes.published_cifar(config, "spikformer_4_384")
    rate = optimizer.learning_rate_schedule(config.optimizer, config.epochs, steps_per_epoch=10.5)

    def published(epoch):
        if epoch < 20:
            return 1e-5 + (5e-4 - 1e-5) * epoch / 20
        if epoch >= 300:
            return 1e-5
        return 1e-5 + (5e-4 - 1e-5) / 2 * (1 + np.cos(np.pi * epoch / 300))

    for step in (0, 10, 11, 104, 105, 210, 211, 1600, 3149, 3150, 3254):
        np.testing.assert_allclose(rate(step), published(int(step / 10.5)), rtol=1e-5)
