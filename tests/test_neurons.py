"""The neuron against closed forms, and against its gradient worked out by hand in float64."""

import functools
import itertools
import math
import re

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis.extra import numpy as hnp

from snnvit_jax.neurons import LIF, RESETS, create_neuron, lif_scan
from snnvit_jax.neurons.recording import spikes as recorded_spikes
from snnvit_jax.neurons.surrogates import SURROGATES, surrogate_gradient
from snnvit_jax.time_steps import masks

TAUS = (None, 1.0, 1.5, 2.0, 10.0)
KINDS = ("lif", "if", "plif")
every_tau = pytest.mark.parametrize("tau", TAUS)
every_reset = pytest.mark.parametrize("reset", RESETS)
every_surrogate = pytest.mark.parametrize("surrogate", SURROGATES)
every_kind = pytest.mark.parametrize("kind", KINDS)
either_detach = pytest.mark.parametrize("detach_reset", [True, False])


# Called without jit, every scan would be compiled anew.
scan = jax.jit(
    lif_scan,
    static_argnames=("reset", "surrogate", "alpha", "detach_reset", "return_membrane"),
)


def random_current(shape, seed=0):
    """A current that makes neurons fire about every third step."""
    return np.random.default_rng(seed).normal(0.9, 1.2, shape)


def reference_scan(current, tau, threshold, reset):
    """(spikes, membrane before reset, membrane before charge) in NumPy, one step at a time."""
    v = np.zeros_like(current[0])
    spikes, charged, before = (np.empty_like(current) for _ in range(3))
    for t, x in enumerate(current):
        before[t] = v
        charged[t] = v + x if tau is None else v + (x - v) / tau
        spikes[t] = charged[t] >= threshold
        v = {"hard": charged[t] * (1 - spikes[t]), "soft": charged[t] - threshold * spikes[t]}[
            reset
        ]
    return spikes, charged, before


def reference_gradient(current, upstream, tau, threshold, reset, surrogate, detach_reset):
    """(d loss / d current, d loss / d tau), given d loss / d spikes: backpropagation by hand."""
    spikes, charged, before = reference_scan(current, tau, threshold, reset)
    slope = np.asarray(surrogate_gradient(charged - threshold, surrogate))
    keeps = 1 - spikes if reset == "hard" else np.ones_like(spikes)  # d v / d h at a fixed spike
    drops = -charged if reset == "hard" else np.full_like(spikes, -threshold)  # d v / d spike
    to_current, to_tau, to_membrane = np.zeros_like(current), 0.0, np.zeros_like(current[0])
    for t in reversed(range(len(current))):
        to_spike = upstream[t] + (0 if detach_reset else to_membrane * drops[t])
        to_charged = to_membrane * keeps[t] + to_spike * slope[t]
        to_current[t] = to_charged * (1 if tau is None else 1 / tau)
        to_membrane = to_charged * (1 if tau is None else 1 - 1 / tau)
        to_tau += 0 if tau is None else np.sum(to_charged * (before[t] - current[t])) / tau**2
    return to_current, to_tau


@functools.partial(jax.jit, static_argnames=("reset", "surrogate", "detach_reset"))
def scan_gradient(current, upstream, tau, threshold, reset, surrogate, detach_reset):
    def loss(current, tau):
        out = lif_scan(current, tau, threshold, reset, surrogate, detach_reset=detach_reset)
        return jnp.vdot(out, upstream)

    return jax.grad(loss, argnums=(0,) if tau is None else (0, 1))(current, tau)


def layer_and_variables(current, threshold=1.0, **neuron):
    layer = LIF(threshold, create_neuron(**neuron))
    return layer, jax.jit(layer.init)(jax.random.key(0), current)


# ---------------------------------------------------------------- trajectories in closed form


@pytest.mark.parametrize("tau", [tau for tau in TAUS if tau])
@every_reset
def test_membrane_of_a_leaky_neuron_approaches_a_constant_current(tau, reset, x64):
    x, T = 0.9, 12
    spikes, membrane = scan(jnp.full(T, x), tau, 1.0, reset, return_membrane=True)
    t = np.arange(1, T + 1)
    np.testing.assert_allclose(membrane, x * (1 - (1 - 1 / tau) ** t), rtol=1e-12)
    assert not spikes.any()


@every_reset
def test_membrane_without_leak_is_a_ramp(reset, x64):
    spikes, membrane = scan(jnp.full(9, 0.11), None, 1.0, reset, return_membrane=True)
    np.testing.assert_allclose(membrane, 0.11 * np.arange(1, 10), rtol=1e-12)
    assert not spikes.any()


@pytest.mark.parametrize("tau", [1.5, 2.0, 10.0])
@pytest.mark.parametrize("x", [1.05, 1.3, 3.0])
@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_leaky_neuron_fires_with_the_period_of_its_charging_curve(tau, x, threshold):
    period = math.ceil(math.log(1 - threshold / x) / math.log(1 - 1 / tau))
    spikes = scan(jnp.full(24, x), tau, threshold)
    np.testing.assert_array_equal(np.flatnonzero(spikes), np.arange(period - 1, 24, period))


@pytest.mark.parametrize("x", [0.125, 0.3, 0.7, 1.0, 2.5])
def test_neuron_without_leak_fires_every_ceil_threshold_over_current_steps(x):
    period = math.ceil(1 / x)
    spikes = scan(jnp.full(24, x), None)
    np.testing.assert_array_equal(np.flatnonzero(spikes), np.arange(period - 1, 24, period))


@pytest.mark.parametrize("x", [0.125, 0.375, 0.75, 1.0])
def test_soft_reset_without_leak_codes_the_current_in_the_spike_count(x):
    counts = np.cumsum(scan(jnp.full(24, x), None, reset="soft"))
    np.testing.assert_array_equal(counts, np.floor(x * np.arange(1, 25)))


def test_resets_differ_by_what_exceeds_the_threshold():
    current = jnp.float32([3.0, 0.0])  # h[0] = 1.5: hard leaves 0, soft leaves 0.5
    for reset, left in (("hard", 0.0), ("soft", 0.5)):
        membrane = lif_scan(current, 2.0, reset=reset, return_membrane=True)[1]
        np.testing.assert_array_equal(membrane, [1.5, left / 2])


@every_reset
@every_surrogate
def test_a_tie_at_the_threshold_fires(reset, surrogate):
    # Numbers, not traced values: the compiler may then rewrite a division by tau.
    neurons = list(itertools.product(TAUS, (0.5, 1.0)))

    @jax.jit
    def run(currents):
        scan_one = functools.partial(lif_scan, reset=reset, surrogate=surrogate)
        return [scan_one(x, *neuron) for x, neuron in zip(currents, neurons, strict=True)]

    at_threshold = [jnp.float32([threshold * (tau or 1), 0]) for tau, threshold in neurons]
    np.testing.assert_array_equal(run(at_threshold), [[1, 0]] * len(neurons))


@pytest.mark.parametrize("tau", [None, 1.0, 2.0])
def test_the_next_smaller_potential_does_not_fire(tau):
    current = np.nextafter(np.float32(1), np.float32(0)) * np.float32(tau or 1)
    assert not lif_scan(jnp.float32([current]), tau).any()


EIGHTHS = hnp.arrays(np.int8, (6, 5), elements=st.integers(-24, 48))


@every_reset
@pytest.mark.parametrize("tau", [None, 1.0, 2.0, 4.0])
@hypothesis.given(eighths=EIGHTHS)
@hypothesis.settings(max_examples=25)
def test_scan_equals_the_step_by_step_reference_exactly(reset, tau, eighths):
    current = eighths / 8.0  # every potential is then exact in float32, so ties are real ties
    spikes, membrane = scan(jnp.float32(current), tau, 0.75, reset, return_membrane=True)
    expected_spikes, expected_membrane, _ = reference_scan(current, tau, 0.75, reset)
    np.testing.assert_array_equal(spikes, expected_spikes)
    np.testing.assert_array_equal(membrane, expected_membrane)


# ---------------------------------------------------------------- gradients


LEAKY = [(tau, surrogate) for tau in (1.0, 1.5, 2.0, 10.0) for surrogate in SURROGATES]


@pytest.mark.parametrize(("tau", "surrogate"), [*LEAKY, (None, "sigmoid")])
@every_reset
@either_detach
def test_gradient_is_backpropagation_through_time(tau, surrogate, reset, detach_reset, x64):
    current, upstream = random_current((3, 40)), random_current((3, 40), seed=1)
    static = {"reset": reset, "surrogate": surrogate, "detach_reset": detach_reset}
    gradients = scan_gradient(current, upstream, tau, 0.8, **static)
    expected = reference_gradient(current, upstream, tau, 0.8, **static)
    np.testing.assert_allclose(gradients[0], expected[0], 1e-10, 1e-12)
    if tau is not None:
        assert gradients[1] == pytest.approx(expected[1], rel=1e-10)


@every_reset
def test_detaching_the_reset_changes_the_gradient(reset, x64):
    current, upstream = random_current((3, 40)), np.ones((3, 40))
    detached, attached = (
        scan_gradient(current, upstream, 2.0, 1.0, reset, "sigmoid", detach)[0]
        for detach in (True, False)
    )
    assert np.abs(detached - attached).max() > 0.01


def test_membrane_gradient_to_tau_equals_finite_differences(x64):
    current = np.random.default_rng(0).uniform(0, 0.9, (5, 30))  # below threshold: smooth in tau

    @jax.jit
    def loss(tau):
        return jnp.sum(lif_scan(current, tau, return_membrane=True)[1] ** 2)

    difference = (loss(2.0 + 1e-5) - loss(2.0 - 1e-5)) / 2e-5
    assert jax.grad(loss)(2.0) == pytest.approx(float(difference), rel=1e-7)


def test_sharpness_reaches_the_gradient_and_not_the_spikes(x64):
    current = jnp.float64([[1.2, 2.4]])
    for alpha in (1.0, 5.0):
        gradient = jax.grad(lambda x, alpha=alpha: scan(x, alpha=alpha).sum())(current)
        expected = surrogate_gradient(current / 2 - 1, "sigmoid", alpha) / 2
        np.testing.assert_allclose(gradient, expected, rtol=1e-12)
        np.testing.assert_array_equal(scan(current, alpha=alpha), [[0, 1]])


@every_kind
def test_layer_gradient_is_backpropagation_through_time(kind, x64):
    current, upstream = random_current((40, 4)), random_current((40, 4), seed=1)  # B T
    layer, variables = layer_and_variables(current, 0.8, kind=kind, tau=3.0)

    @jax.jit
    def loss(variables, current):
        return jnp.vdot(layer.apply(variables, current), upstream)

    to_variables, to_current = jax.grad(loss, (0, 1))(variables, current)
    tau = None if kind == "if" else 3.0
    expected, to_tau = reference_gradient(
        current.T, upstream.T, tau, 0.8, "hard", "sigmoid", detach_reset=True
    )
    # The parameters are float32, so a learnable tau is rounded to it.
    np.testing.assert_allclose(to_current, expected.T, 1e-5, 1e-7)
    if kind == "plif":  # tau = 1 + exp(-w), so d tau / d w = 1 - tau
        assert to_variables["params"]["tau_logit"] == pytest.approx(to_tau * (1 - 3.0), rel=1e-5)


def test_learnable_time_constant_learns():
    current = jnp.full((4, 6, 10), 1.4)  # with tau = 2 it fires every second step
    layer, variables = layer_and_variables(current, kind="plif")

    @jax.jit
    def rate(variables):
        return layer.apply(variables, current).mean()

    gradient = jax.grad(rate)(variables)["params"]["tau_logit"]
    assert np.isfinite(gradient)
    assert gradient > 0  # a larger logit is a smaller tau, which charges faster
    faster = {"params": variables["params"] | {"tau_logit": jnp.float32(3.0)}}
    assert rate(faster) > rate(variables)


# ---------------------------------------------------------------- what holds for all


@pytest.mark.parametrize(
    ("dtype", "tau", "reset"), [("bfloat16", 2.0, "hard"), ("float16", None, "soft")]
)
def test_dtype_is_kept_by_spikes_membrane_and_gradient(dtype, tau, reset):
    current = jnp.asarray(random_current((3, 30)), dtype)
    spikes, membrane = scan(current, tau, 1.0, reset, return_membrane=True)
    gradient = scan_gradient(current, jnp.ones_like(current), tau, 1.0, reset, "arctan", True)[0]
    assert spikes.dtype == membrane.dtype == gradient.dtype == current.dtype
    assert set(np.unique(spikes.astype("float32"))) == {0, 1}
    assert np.isfinite(gradient.astype("float32")).all()
    assert gradient.any()


@every_kind
def test_layer_keeps_bfloat16_beside_float32_parameters(kind):
    current = jnp.asarray(random_current((3, 4, 5)), "bfloat16")
    layer, variables = layer_and_variables(current, kind=kind)
    assert layer.apply(variables, current).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}


@every_reset
@every_surrogate
def test_neurons_do_not_see_each_other(reset, surrogate, x64):
    def run(current):
        spikes = scan(current, 2.0, 0.8, reset, surrogate)
        ones = np.ones_like(current)
        static = {"reset": reset, "surrogate": surrogate, "detach_reset": False}
        return spikes, scan_gradient(current, ones, 2.0, 0.8, **static)[0]

    current = random_current((3, 40))
    order = np.random.default_rng(2).permutation(40)
    changed = current.copy()
    current[:, 7], changed[:, 7] = 1.1, 0.4
    others = np.arange(40) != 7
    results = zip(run(current), run(current[:, order]), run(changed), strict=True)
    for of_all, of_permuted, of_changed in results:
        np.testing.assert_array_equal(of_permuted, of_all[:, order])
        np.testing.assert_array_equal(of_changed[:, others], of_all[:, others])
        assert (of_changed[:, 7] != of_all[:, 7]).any()


def test_a_neuron_does_not_see_its_own_future():
    current = random_current((6, 50)).astype("float32")
    later = current.copy()
    later[4:] += 1.0
    np.testing.assert_array_equal(lif_scan(current)[:4], lif_scan(later)[:4])


@pytest.mark.parametrize("shape", [(1,), (5,), (1, 3), (2, 3, 4, 5, 6)])
def test_any_number_of_axes_and_a_single_time_step(shape):
    current = random_current(shape)
    expected = reference_scan(current, 2.0, 1.0, "hard")[0]
    np.testing.assert_array_equal(lif_scan(jnp.float32(current)), expected)


def test_a_time_constant_of_one_has_no_memory():
    current = random_current((6, 50)).astype("float32")
    np.testing.assert_array_equal(lif_scan(current, 1.0), current >= 1)


# ---------------------------------------------------------------- the layer


@pytest.mark.parametrize(("kind", "reset"), list(itertools.product(KINDS, RESETS)))
def test_layer_is_the_scan_over_its_second_axis(kind, reset):
    current = jnp.float32(random_current((3, 5, 7)))  # B T C
    layer, variables = layer_and_variables(current, 0.5, kind=kind, tau=2.0, reset=reset)
    expected = scan(current.swapaxes(0, 1), None if kind == "if" else 2.0, 0.5, reset)
    np.testing.assert_array_equal(jax.jit(layer.apply)(variables, current), expected.swapaxes(0, 1))


@every_kind
def test_layer_owns_its_scores_and_a_time_constant_only_if_learnable(kind):
    _, variables = layer_and_variables(jnp.zeros((2, 6, 3)), kind=kind)
    shapes = jax.tree.map(jnp.shape, variables)
    learnable = {"tau_logit": ()} if kind == "plif" else {}
    assert shapes == {"params": {masks.SCORE: (6,)} | learnable}


@pytest.mark.parametrize("tau", [1.25, 2.0, 8.0])
def test_learnable_time_constant_starts_where_asked(tau):
    current = jnp.full((1, 1, 1), 2.0)
    _, variables = layer_and_variables(current, kind="plif", tau=tau)
    assert 1 + np.exp(-variables["params"]["tau_logit"]) == pytest.approx(tau, rel=1e-6)


def test_a_relu_layer_rectifies_each_time_step_by_itself_and_is_masked():
    current = jnp.float32(random_current((3, 4, 7)))
    layer, variables = layer_and_variables(current, 0.5, kind="relu")
    variables["params"][masks.SCORE] = jnp.float32([1, -1, 1, -1])
    emitted, seen = layer.apply(variables, current, mutable=["spikes"])
    expected = np.maximum(current, 0) * np.float32([1, 0, 1, 0])[:, None]
    np.testing.assert_array_equal(emitted, expected)
    (recorded,) = recorded_spikes(seen).values()
    np.testing.assert_array_equal(recorded, expected.swapaxes(0, 1))


def test_the_gradient_of_a_relu_layer_is_exact_and_reaches_its_scores():
    current = jnp.float32(random_current((3, 4, 7)))
    layer, variables = layer_and_variables(current, kind="relu")

    def total(params, x):
        return jnp.sum(layer.apply({"params": params}, x))

    to_params, to_current = jax.grad(total, (0, 1))(variables["params"], current)
    np.testing.assert_array_equal(to_current, current > 0)
    expected = np.maximum(current, 0).sum((0, 2))  # through the straight-through mask
    np.testing.assert_allclose(to_params[masks.SCORE], expected, rtol=1e-5)


def test_layer_records_its_spikes_with_time_first():
    current = jnp.float32(random_current((3, 5, 7)))
    layer, variables = layer_and_variables(current)
    emitted, seen = layer.apply(variables, current, mutable=["spikes"])
    (recorded,) = recorded_spikes(seen).values()
    np.testing.assert_array_equal(recorded, emitted.swapaxes(0, 1))


def test_layer_names_a_bad_threshold():
    with pytest.raises(ValueError, match=r"threshold=-0\.5"):
        layer_and_variables(jnp.ones((2, 4, 3)), -0.5)


# ---------------------------------------------------------------- the compiled program


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().as_text()


def fusions_at_the_top(program):
    entry = re.search(r"^ENTRY .*?^}", program, re.DOTALL | re.MULTILINE).group()
    return len(re.findall(r" fusion\(", entry))


def has_loop(program):
    return re.search(r"\bwhile\(", program) is not None


def test_loops_are_recognised_in_a_compiled_program():
    looped = compiled(lambda x: jax.lax.scan(lambda v, x: (v * x, v), x[0], x), jnp.ones((9, 3)))
    assert has_loop(looped)


@every_reset
@every_surrogate
def test_forward_scan_compiles_to_one_fusion(reset, surrogate):
    program = compiled(lambda x: lif_scan(x, 2.0, 1.0, reset, surrogate), jnp.ones((4, 8, 6, 16)))
    assert not has_loop(program)
    assert fusions_at_the_top(program) == 1


@pytest.mark.parametrize("time_steps", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", ["lif", "if"])
def test_layer_with_time_second_and_mask_compiles_to_one_fusion(kind, time_steps):
    current = jnp.ones((8, time_steps, 6, 16))
    layer, variables = layer_and_variables(current, kind=kind)
    program = compiled(layer.apply, variables, current)
    assert not has_loop(program)
    assert fusions_at_the_top(program) == 1


@pytest.mark.parametrize(
    ("kind", "detach_reset"), [("lif", True), ("lif", False), ("if", True), ("plif", True)]
)
def test_backward_compiles_without_a_loop(kind, detach_reset):
    current = jnp.ones((8, 4, 6, 16))
    layer, variables = layer_and_variables(current, kind=kind, detach_reset=detach_reset)
    weights = jnp.arange(16.0)
    gradient = jax.grad(lambda v, x: jnp.sum(layer.apply(v, x) * weights), (0, 1))
    assert not has_loop(compiled(gradient, variables, current))
