"""What deployment is made of: signals at some steps, folding, and which steps have an effect."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

import snnvit_jax as snn
from snnvit_jax import layers
from snnvit_jax.deployment import folding, planning
from snnvit_jax.layers import MatrixProduct, max_pool, normalize
from snnvit_jax.layers.head import token_mean
from snnvit_jax.neurons import LIF, LIFNeuron, create_neuron
from snnvit_jax.signals import Plan, Signal, Tracer
from snnvit_jax.signals.signal import OfImages

T = 5


def plan(steps=(), computed=(), folded=()):
    """A plan for layers that are roots, and so have no name."""
    return Plan({"": tuple(steps)}, {"": tuple(computed)}, frozenset(folded), jnp.float32)


NOTHING = plan()


def signal(active, shape=(2, 3), seed=0, spikes=False, plan=NOTHING):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(shape[0], len(active), *shape[1:])).astype(np.float32)
    values = jnp.asarray(values > 0 if spikes else values, np.float32)
    return Signal(values, steps=tuple(active), time_steps=T, plan=plan)


def dense(x):
    """[B, T, ...], zeros included."""
    if x.static:
        return np.repeat(x.values, T, axis=1)
    full = np.zeros((x.shape[0], T, *x.shape[2:]), np.float32)
    full[:, list(x.steps)] = x.values
    return full


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize(
    ("a", "b"), [((0, 2), (1, 2, 4)), ((1, 3), (1, 3)), ((), (2,)), ((0,), ()), ((), ())]
)
def test_a_sum_is_active_where_either_is(a, b):
    x, y = signal(a), signal(b, seed=1)
    total = x + y
    assert total.steps == tuple(sorted({*a, *b}))
    np.testing.assert_array_equal(dense(total), dense(x) + dense(y))


@pytest.mark.parametrize("steps", [(0, 2), (), (0, 1, 2, 3, 4)])
def test_a_static_signal_is_a_term_at_every_step(steps):
    x = signal(steps)
    image = Signal.of(jnp.full((2, 1, 3), 2.0), T, plan=x.plan)
    total = x + image
    np.testing.assert_array_equal(dense(total), dense(x) + 2.0)
    twice = image + image
    assert twice.static
    np.testing.assert_array_equal(twice.values, np.full((2, 1, 3), 4.0))


@pytest.mark.parametrize("kept", [(0, 1, 2), (2, 3, 4), (1, 3), (0, 1, 2, 3, 4)])
def test_a_signal_is_restricted_to_steps(kept):
    x = signal((0, 2, 4))
    restricted = x.restricted(kept)
    assert restricted.steps == tuple(t for t in (0, 2, 4) if t in kept)
    expected = dense(x) * np.isin(np.arange(T), kept)[:, None]
    np.testing.assert_array_equal(dense(restricted), expected)


def test_a_signal_knows_where_its_steps_lie():
    x = signal((0, 2, 4))
    assert [x.active(t) for t in range(T)] == [True, False, True, False, True]
    np.testing.assert_array_equal(x.values[:, x.index(4)], x.values[:, 2])
    spread = Signal.of(jnp.ones((2, 1, 3)), T, plan=x.plan).spread()
    assert spread.steps == tuple(range(T))
    assert spread.values.shape == (2, T, 3)


def test_attention_is_that_of_the_model_at_its_steps():
    planned = plan(computed=(1, 2))
    q, k, v = (signal((1, 2), (2, 3, 4), seed, True, planned) for seed in range(3))
    product = layers.SpikingAttention(num_heads=2).apply({}, q, k, v)
    expected = layers.spiking_attention(*(jnp.asarray(dense(x)) for x in (q, k, v)), 2)
    assert product.steps == (1, 2)
    np.testing.assert_array_equal(dense(product), expected)


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("tau", [None, 2.0])
@pytest.mark.parametrize(
    ("active", "wanted"), [((0, 1, 2, 3, 4), (0, 1, 2, 3, 4)), ((1, 3), (0, 2, 4)), ((), (1, 4))]
)
def test_neurons_integrate_the_constant_where_nothing_arrives(active, wanted, tau, reset):
    drive, constant = signal(active, (20, 3), plan=plan(wanted)), jnp.array([0.3, 0.7, 1.2])
    layer = LIF(0.8, LIFNeuron(tau=tau, reset=reset))
    spikes = layer.apply({"constants": {"current": constant}}, drive)
    current = jnp.moveaxis(dense(drive) + constant, 1, 0)
    expected = np.asarray(snn.lif_scan(current, tau, 0.8, reset))
    assert spikes.steps == wanted
    np.testing.assert_array_equal(jnp.moveaxis(spikes.values, 1, 0), expected[list(wanted)])


def test_the_mean_counts_silent_steps():
    x = signal((1, 4), (2, 6, 3))
    head = layers.Head(3)
    weights = {"params": {"kernel": jnp.eye(3), "bias": jnp.zeros(3)}}
    weights["constants"] = {"features": jnp.array([0.0, 1.0, -2.0])}
    expected = dense(x).mean((1, 2)) + weights["constants"]["features"]
    np.testing.assert_allclose(head.apply(weights, x), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 4, 6, 5), (1, 1, 2, 2, 1), (2, 0, 4, 4, 1)])
def test_pooling_at_some_steps_is_that_of_each(shape):
    x = np.random.default_rng(0).integers(0, 2, shape).astype(np.float32)
    steps = tuple(range(1, 1 + shape[1]))
    pooled = Signal(jnp.asarray(x), steps=steps, time_steps=T, plan=plan()).map(max_pool)
    assert pooled.steps == steps
    expected = np.zeros((shape[0], 0, shape[2] // 2, shape[3] // 2, shape[4]))
    if shape[1]:
        expected = np.stack([max_pool(jnp.asarray(x[:, i])) for i in range(shape[1])], 1)
    np.testing.assert_array_equal(pooled.values, expected)


def test_a_factor_is_as_exact_in_the_model_as_in_what_is_deployed(x64):
    values = np.random.default_rng(0).normal(size=(2, T, 3))
    np.testing.assert_array_equal((Signal.of(jnp.asarray(values)) * 0.1).values, values * 0.1)


# ---------------------------------------------------------------- folding


def affine(scale, bias, mean, var):
    return {"scale": scale, "bias": bias, "mean": mean, "var": var}


def linear_and_norm(kernel, bias, norm):
    """The trace of an image, a linear map and a normalisation."""
    tracer, features = Tracer(), kernel.shape[-1:]
    image = tracer.add("image", (), (), kernel.shape[:1], {})
    details = {"function": MatrixProduct(), "kernel": kernel, "bias": bias}
    linear = tracer.add("linear", ("linear",), (image,), features, details)
    tracer.add("norm", ("norm",), (linear,), features, norm)
    return tracer


def folded_map(tracer):
    """(kernel, constant) of the map and its normalisation."""
    kernels, folded = folding.fold_kernels(tracer)
    assert folded == {"norm"}
    found = planning.effects(tracer, {}, T)
    return kernels["linear"], found.constants[-1]


@pytest.mark.parametrize("bias", [None, np.float64([1.0, -2.0, 3.0])])
def test_a_folded_map_is_the_map_and_its_normalisation(bias, x64):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(7, 4)), rng.normal(size=(4, 3))
    scale, shift, mean, variance = rng.uniform(0.1, 2, (4, 3))
    norm = affine(scale, shift, mean, variance)
    folded_kernel, constant = folded_map(linear_and_norm(kernel, bias, norm))
    y = x @ kernel + (0 if bias is None else bias)
    expected = normalize(y, mean, variance, scale, shift)
    np.testing.assert_allclose(x @ folded_kernel + constant, expected, rtol=1e-13)


def test_folding_loses_nothing_before_the_last_rounding():
    # In float32, 1e8 + 1 is 1e8: the bias must not be added to the mean in that precision.
    one, big = np.float32([1]), np.float32([1e8])
    norm = affine(one, np.float32([0]), -big, np.float32([1 - 1e-5]))
    constant = folded_map(linear_and_norm(one[None], one, norm))[1]
    assert constant[0] == pytest.approx(1e8 + 1, abs=0.01)


def test_a_map_that_somebody_else_reads_is_not_folded():
    one = np.ones(1)
    tracer = linear_and_norm(one[None], None, affine(one, one, one, one))
    tracer.add("sum", (), (1, 2), (1,), {})
    kernels, folded = folding.fold_kernels(tracer)
    assert folded == set()
    np.testing.assert_array_equal(kernels["linear"], one[None])


def scaled_channels(*others):
    """The trace of a linear map whose first two channels of four are scaled, and of its readers."""
    tracer = Tracer()
    image = tracer.add("image", (), (), (5, 4), {})
    details = {"function": MatrixProduct(), "kernel": np.ones((4, 4)), "bias": None}
    linear = tracer.add("linear", ("linear",), (image,), (5, 4), details)
    for start, stop in ((0, 2), *others):
        taken = OfImages(lambda x, start=start, stop=stop: x[..., start:stop])
        tracer.add("map", (), (linear,), (5, stop - start), {"function": taken})
    tracer.add("scale", ("scale",), (2,), (5, 2), {"factor": np.array([3.0, -0.5])})
    return tracer


@pytest.mark.parametrize(
    ("others", "folded"), [((), True), (((2, 4),), True), (((1, 4),), False), (((0, 1),), False)]
)
def test_a_scale_is_folded_through_a_map_if_others_read_other_channels(others, folded):
    kernels, names = folding.fold_kernels(scaled_channels(*others))
    assert names == ({"scale"} if folded else set())
    expected = [3.0, -0.5, 1.0, 1.0] if folded else np.ones(4)
    np.testing.assert_array_equal(kernels["linear"], np.broadcast_to(expected, (4, 4)))


def test_the_constant_around_a_padded_image_is_that_of_zero(x64):
    scale, bias, mean, variance = np.array([[2.0], [3.0], [-1.0], [4.0 - 1e-5]])
    tracer = Tracer()
    image = tracer.add("image", (), (), (2, 3, 1), {})
    details = {"function": MatrixProduct(), "kernel": np.eye(1), "bias": np.array([5.0])}
    linear = tracer.add("linear", ("linear",), (image,), (2, 3, 1), details)
    norm = affine(scale, bias, mean, variance) | {"pad": 1}
    tracer.add("norm", ("norm",), (linear,), (4, 5, 1), norm)
    expected = np.full((4, 5, 1), 4.0)  # (0 + 1) * 2 / 2 + 3
    expected[1:3, 1:4] = 9.0  # (5 + 1) * 2 / 2 + 3
    found = planning.effects(tracer, {}, T).constants[-1]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def pooled_current(function, constant, shape):
    """The trace of an image, a linear map with a constant, and a map of its current."""
    tracer = Tracer()
    image = tracer.add("image", (), (), constant.shape, {})
    details = {"function": MatrixProduct(), "kernel": np.eye(2), "bias": constant}
    linear = tracer.add("linear", ("linear",), (image,), constant.shape, details)
    tracer.add("map", (), (linear,), shape, {"function": OfImages(function)})
    return tracer


def mean_pool(x):
    return x.reshape(len(x), 2, 2, 2, 2, 2).mean((2, 4))


UNEVEN = np.random.default_rng(0).normal(size=(4, 4, 2))
EVEN = np.broadcast_to([0.5, -2.0], (4, 4, 2))


@pytest.mark.parametrize(
    ("function", "constant"),
    [(max_pool, EVEN), (max_pool, np.zeros((4, 4, 2))), (mean_pool, UNEVEN)],
)
def test_a_map_that_leaves_constants_apart_is_deployed(function, constant, x64):
    found = planning.effects(pooled_current(function, constant, (2, 2, 2)), {}, T)
    expected = function(jnp.asarray(constant)[None])[0]
    np.testing.assert_allclose(found.constants[-1], expected, rtol=1e-12)


def test_a_maximum_among_uneven_constants_is_refused():
    with pytest.raises(ValueError, match="max_pool.*map the spikes after the neuron"):
        planning.effects(pooled_current(max_pool, UNEVEN, (2, 2, 2)), {}, T)


# ---------------------------------------------------------------- which steps have an effect


class Network:
    """The trace of spiking layers, each with a current of its own, and of a readout."""

    def __init__(self, **neuron):
        self.tracer, self.numbers = Tracer(), {}
        self.neuron = create_neuron(**neuron)
        self.image = self.tracer.add("image", (), (), (2,), {})

    def layer(self, name, *sources, constant=(0.0, 0.0), operation="sum"):
        """A linear map with a bias, of the sum or the product of layers; then neurons."""
        inputs = [self.numbers[source] for source in sources] or [self.image]
        if len(inputs) > 1:
            path = (f"{name}_product",) if operation == "product" else ()
            inputs = [self.tracer.add(operation, path, inputs, (2,), {"function": product})]
        details = {"function": MatrixProduct(), "kernel": np.eye(2), "bias": np.array(constant)}
        linear = self.tracer.add("linear", (f"{name}_linear",), inputs, (2,), details)
        details = {"neuron": self.neuron, "threshold": 1.0, "parameters": {}}
        self.numbers[name] = self.tracer.add("neuron", (name,), (linear,), (2,), details)
        return self

    def effective(self, output, **masks):
        """{layer: steps that are computed}, if one layer is read out."""
        masks = {name: np.array(mask, bool) for name, mask in masks.items()}
        details = {"function": token_mean, "weights": {}}
        self.tracer.add("readout", ("head",), (self.numbers[output],), (2,), details)
        time_steps = len(next(iter(masks.values())))
        found = planning.effects(self.tracer, masks, time_steps)
        return {name: found.computed(number) for name, number in self.numbers.items()}


def product(a, b, c):
    return a * b * c


def chain(**settings):
    constant = settings.pop("constant", (0.0, 0.0))
    return Network(**settings).layer("a").layer("b", "a", constant=constant)


def test_a_layer_stops_when_its_listener_does():
    assert chain().effective("b", a=[1, 1, 1, 1], b=[0, 1, 1, 0]) == {"a": (0, 1, 2), "b": (1, 2)}


def test_a_layer_that_nobody_hears_is_left_out():
    assert chain().effective("b", a=[1, 1], b=[0, 0]) == {"a": (), "b": ()}


def test_a_layer_is_silent_where_nothing_arrives_unless_its_constant_makes_it_fire():
    masks = {"a": [0, 1, 0], "b": [1, 1, 1]}
    assert chain().effective("b", **masks)["b"] == (1,)
    assert chain(constant=(-3.0, 1.0)).effective("b", **masks)["b"] == (0, 1, 2)


def test_after_a_soft_reset_a_layer_may_still_fire():
    assert chain(reset="soft").effective("b", a=[0, 1, 0], b=[1, 1, 1])["b"] == (1, 2)


def test_factors_of_a_product_share_their_steps():
    network = Network().layer("a").layer("b").layer("c")
    network.layer("d", "a", "b", "c", operation="product")
    masks = {"a": [1, 1, 1, 0], "b": [0, 1, 1, 1], "c": [1, 1, 1, 1], "d": [1, 1, 0, 0]}
    found = network.effective("d", **masks)
    # What a membrane keeps of its past counts, what is emitted then does not.
    assert found == {"a": (1,), "b": (1,), "c": (1,), "d": (1,)}


def test_a_sum_hears_every_term():
    network = chain().layer("c", "a", "b")
    # b emits at a step at which nothing arrives, so it never does.
    found = network.effective("c", a=[1, 0, 0], b=[0, 0, 1], c=[1, 1, 1])
    assert found == {"a": (0,), "b": (), "c": (0,)}


@pytest.mark.parametrize("threshold", [0.5, 1.0])
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize(("kind", "bias"), [("lif", 0.9), ("lif", 0.0), ("if", 0.0), ("if", -0.1)])
def test_where_a_layer_is_said_to_be_silent_it_is(kind, bias, reset, threshold):
    rng = np.random.default_rng(0)
    neuron = create_neuron(kind=kind, tau=1.3, reset=reset)
    current = rng.normal(1, 3, size=(T, 2000)).astype(np.float32)
    arriving = np.array([0, 1, 0, 1, 0], bool)
    bias *= threshold
    possible = neuron.may_emit(arriving, np.array([-1.0, bias]), threshold, {})
    assert not possible.all()
    current = np.where(arriving[:, None], current, np.float32(bias))
    tau = 1.3 if kind == "lif" else None
    fired = np.asarray(snn.lif_scan(current, tau, threshold, reset)).any(axis=1)
    assert not (fired & ~possible).any()
    assert (fired == possible).all()  # and nothing else is ruled out


@pytest.mark.parametrize(("kind", "bias"), [("lif", 1.0), ("if", 1e-3)])
def test_a_constant_that_can_make_a_layer_fire_rules_nothing_out(kind, bias):
    neuron = create_neuron(kind=kind)
    assert neuron.may_emit(np.zeros(3, bool), np.array([bias, -9.0]), 1.0, {}).all()


class Shared(nn.Module):
    """A model that calls one layer twice."""

    config: Any

    @nn.compact
    def __call__(self, x):
        shared = layers.Linear(3, name="shared")
        return layers.Head(3, name="head")(shared(shared(x)))


def test_a_layer_that_is_called_twice_is_refused(tiny):
    weights = {"kernel": jnp.zeros((3, 3)), "bias": jnp.zeros(3)}
    variables = {"params": {"shared": weights, "head": weights}}
    with pytest.raises(ValueError, match=r"layers \['shared'\] are called more than once"):
        planning.trace(Shared(tiny.model.config), variables, (16, 16, 3))
