"""What every kind of neuron promises: the seam that deployment, energy and early exit rely on."""

import dataclasses
import functools
from typing import ClassVar

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnvit_jax.neurons import KINDS, Neuron, Update, create_neuron, describe
from snnvit_jax.neurons.kinds import as_neuron

T, B, C = 4, 3, 5
THRESHOLD = 0.75
SETTINGS = [
    (kind, {"reset": reset}) if reset else (kind, {})
    for kind in KINDS
    for reset in (("hard", "soft") if kind in ("lif", "if", "plif") else ("",))
]
every_neuron = pytest.mark.parametrize(
    ("kind", "settings"), SETTINGS, ids=lambda x: x if isinstance(x, str) else "".join(x.values())
)
STEPS = st.sets(st.integers(0, T - 1), min_size=1).map(lambda steps: tuple(sorted(steps)))
MASKS = st.lists(st.booleans(), min_size=T, max_size=T).map(np.array)


def parameters_of(neuron, seed=0):
    initial = neuron.parameters(T, THRESHOLD)
    keys = jax.random.split(jax.random.key(seed), max(len(initial), 1))
    return {name: create(key) for (name, create), key in zip(initial.items(), keys, strict=False)}


def random_current(seed, mean=0.9):
    return np.random.default_rng(seed).normal(mean, 1.2, (B, T, C)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def run(neuron, current, parameters):
    return neuron.run(current, THRESHOLD, parameters, axis=1)


@every_neuron
@hypothesis.given(steps=STEPS, active=MASKS, seed=st.integers(0, 99))
@hypothesis.settings(max_examples=12)
def test_at_some_steps_it_emits_what_it_emits_at_all(kind, settings, steps, active, seed):
    neuron = create_neuron(kind, **settings)
    parameters = parameters_of(neuron, seed)
    constant = np.random.default_rng(seed).uniform(-0.5, 1.0, C).astype(np.float32)
    arriving = random_current(seed) * active[:, None]
    current = arriving + constant

    def current_at(t):
        return jnp.asarray(current[:, t] if active[t] else constant)

    found = neuron.run_at(current_at, steps, (B, C), T, THRESHOLD, parameters)
    np.testing.assert_array_equal(found, run(neuron, current, parameters)[:, list(steps)])


@every_neuron
def test_it_is_causal_exactly_if_it_says_so(kind, settings):
    neuron = create_neuron(kind, **settings)
    parameters = parameters_of(neuron)
    differs = np.zeros((T, T), bool)  # what is emitted at t, by the step of the current changed
    for seed in range(5):
        current = random_current(seed)
        for changed in range(T):
            other = current.copy()
            other[:, changed] += 2.0
            before, after = (run(neuron, x, parameters) for x in (current, other))
            differs[:, changed] |= np.asarray(before != after).any((0, 2))
    assert differs.diagonal().all()
    assert neuron.causal == (not np.triu(differs, 1).any())


@every_neuron
@hypothesis.given(wanted=MASKS, seed=st.integers(0, 99))
@hypothesis.settings(max_examples=15)
def test_no_other_step_is_read_than_it_says(kind, settings, wanted, seed):
    neuron = create_neuron(kind, **settings)
    parameters = parameters_of(neuron, seed)
    read = neuron.steps_read(wanted)
    assert read.dtype == bool
    assert read.shape == (T,)
    current, other = random_current(seed), random_current(seed + 1000)
    changed = np.where(read[:, None], current, other)
    before, after = (run(neuron, x, parameters)[:, wanted] for x in (current, changed))
    np.testing.assert_array_equal(before, after)


def limits(threshold):
    """Constants around those up to which a neuron is known to stay silent."""
    near = [0.0, 1e-3, 0.05, 0.15, 0.98, 0.985, 0.99, 0.9899999, 0.9900001, 0.995, 1.0]
    return st.one_of(
        st.floats(-2, 2), st.sampled_from([x * threshold for x in near]), st.just(-1e-7)
    )


@every_neuron
@hypothesis.given(data=st.data(), arriving=MASKS, seed=st.integers(0, 99))
@hypothesis.settings(max_examples=60)
def test_no_step_is_ruled_out_at_which_it_emits(kind, settings, data, arriving, seed):
    threshold = data.draw(st.sampled_from([0.5, 0.505, 0.51, 0.75, 1.0, 1.3]))
    dtype = data.draw(st.sampled_from(["float32", "bfloat16"]))
    scale = data.draw(st.sampled_from([1.0, 30.0]))
    tau = data.draw(st.sampled_from([None, 1.0, 1.001, 1.1, 2.0, 10.0]))
    settings = dict(settings)
    if kind == "lif":
        settings["tau"] = tau
    neuron = create_neuron(kind, **settings)
    parameters = parameters_of(neuron, seed)
    if kind == "plif":
        parameters["tau_logit"] = jnp.float32(-np.log(max((tau or 2.0) - 1, 1e-12)))
    constant = np.array([data.draw(limits(threshold)), -3.0])
    numbers = {name: np.asarray(x) for name, x in parameters.items()}
    possible = neuron.may_emit(arriving, constant, threshold, numbers)
    assert possible.dtype == bool
    assert possible.shape == (T,)
    inputs = np.random.default_rng(seed).normal(0, scale, (200, T, 2)) * arriving[:, None]
    current = jnp.asarray(inputs + constant, dtype)
    emitted = neuron.run(current, threshold, parameters, axis=1)
    ever = np.asarray(emitted != 0).any((0, 2))
    assert not (ever & ~possible).any(), (ever, possible)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("kind", "tau"), [("lif", 1.0), ("lif", 1.001), ("plif", 1 + 1e-12)])
def test_a_neuron_that_hardly_leaks_its_past_rounds_and_is_not_ruled_out(kind, tau, dtype):
    """v + (x - v) with v far below x is x only to the precision of v."""
    neuron = create_neuron(kind, **({"tau": tau} if kind == "lif" else {}))
    parameters = {"tau_logit": np.float32(-np.log(tau - 1))} if kind == "plif" else {}
    size = 100 if dtype == "bfloat16" else 1e7
    drive = -size * np.random.default_rng(0).uniform(1, 2, (500, 1))
    current = np.concatenate([drive, np.full((500, 3), 0.7)], axis=1)
    emitted = neuron.run(jnp.asarray(current, dtype), 0.75, parameters, axis=1)
    ever = np.asarray(emitted != 0).any(0)
    arriving = np.array([True, False, False, False])
    possible = neuron.may_emit(arriving, np.array([0.7]), 0.75, parameters)
    assert not (ever & ~possible).any(), (ever, possible)


@pytest.mark.parametrize(("largest", "fires"), [(-0.5, False), (0.0, False), (1e-6, True)])
def test_without_spikes_a_constant_counts_where_it_is_above_zero(largest, fires):
    arriving = np.array([False, True, False])
    found = create_neuron("relu").may_emit(arriving, np.array([-2.0, largest]), THRESHOLD, {})
    np.testing.assert_array_equal(found, arriving | fires)


@dataclasses.dataclass(frozen=True)
class UnknownNeuron(Neuron):
    """Of a kind that is not registered; its tau need not be that of another kind."""

    kind: ClassVar[str] = "unknown"
    tau: float = 9.0


def test_settings_are_taken_over_from_a_known_kind_alone():
    own = {"kind": "lif", "alpha": 3.0}
    assert as_neuron(own, UnknownNeuron()) == create_neuron("lif", alpha=3.0)
    known = create_neuron("lif", tau=9.0, alpha=1.0)
    assert as_neuron(own, known) == create_neuron("lif", tau=9.0, alpha=3.0)


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("lif", {}, Update(macs=1)),
        ("lif", {"tau": None}, Update(accumulates=1)),
        ("if", {}, Update(accumulates=1)),
        ("plif", {}, Update(macs=1)),
        ("relu", {}, Update()),
        ("quantized", {}, Update()),
        ("psn", {}, Update(macs=6)),
    ],
)
def test_what_a_time_step_costs(kind, settings, expected):
    assert create_neuron(kind, **settings).update(6) == expected


@every_neuron
def test_it_emits_nothing_but_zeros_and_ones_if_it_is_said_to_spike(kind, settings):
    neuron = create_neuron(kind, **settings)
    emitted = np.unique(run(neuron, random_current(0), parameters_of(neuron)))
    assert neuron.spiking == (set(emitted) == {0.0, 1.0})


@every_neuron
def test_it_can_be_described_and_made_again(kind, settings):
    neuron = create_neuron(kind, **settings)
    assert as_neuron(describe(neuron)) == neuron
    assert hash(neuron) == hash(create_neuron(kind, **settings))


@pytest.mark.parametrize("levels", [1, 3, 8])
def test_quantized_is_the_rate_of_integrate_and_fire_under_a_constant_current(levels):
    current = np.random.default_rng(0).uniform(-1, 2, (500, 1)).astype(np.float32)
    constant = np.repeat(current, levels, axis=1)
    spikes = create_neuron("if", reset="soft").run(constant, THRESHOLD, {}, axis=1)
    rate = create_neuron("quantized", levels=levels).run(current, THRESHOLD, {}, axis=1)
    np.testing.assert_allclose(rate[:, 0], np.mean(spikes, axis=1), atol=1e-6)
    assert set(np.unique(np.round(rate * levels))) == set(range(levels + 1))


def test_quantized_has_the_gradient_of_its_mean_line_until_half_a_level_beyond_its_ends():
    neuron = create_neuron("quantized", levels=4)
    ends = THRESHOLD * np.array([-0.01, 0.01, 0.5, 1.24, 1.26])
    slopes = jax.vmap(jax.grad(lambda x: neuron.run(x[None], THRESHOLD, {})[0]))(ends)
    np.testing.assert_allclose(slopes, np.array([0, 1, 1, 1, 0]) / THRESHOLD, rtol=1e-6)


@pytest.mark.parametrize("levels", [0, -1, 129, 2.0, "4", True])
def test_quantized_needs_a_whole_number_of_levels(levels):
    for kind in ("quantized", "lif"):  # a kind that has no use for it reads it all the same
        with pytest.raises(ValueError, match=f"levels={levels!r} must be a whole number"):
            create_neuron(kind, levels=levels)


@pytest.mark.parametrize(("largest", "fires"), [(0.0, False), (0.24, False), (0.26, True)])
def test_quantized_emits_from_a_level_of_its_threshold_on(largest, fires):
    arriving = np.array([False, True, False])
    constant = np.array([-2.0, largest * THRESHOLD])
    found = create_neuron("quantized", levels=4).may_emit(arriving, constant, THRESHOLD, {})
    np.testing.assert_array_equal(found, arriving | fires)
