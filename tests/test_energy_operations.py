"""Counting the operations of single layers, against loops over every tap of every output."""

import dataclasses

import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnvit_jax import energy
from snnvit_jax.energy import convolution, operations
from snnvit_jax.energy.layer_operations import OPERATIONS
from snnvit_jax.layers import Gate, Linear, SpikingAttention
from snnvit_jax.neurons import LIF
from snnvit_jax.signals import Signal
from snnvit_jax.xla import programs

RNG = np.random.default_rng(0)


def spikes(*shape):
    return RNG.integers(0, 2, shape).astype(np.float32)


def brute_force_coverage(side, kernel, stride, dilation, low, high):
    """(how many outputs use each input, number of outputs) of one axis, one tap after the other."""
    used, outputs, start = [0] * side, 0, -low
    while start + (kernel - 1) * dilation < side + high:
        for tap in range(kernel):
            if 0 <= start + tap * dilation < side:
                used[start + tap * dilation] += 1
        outputs, start = outputs + 1, start + stride
    return used, outputs


@hypothesis.given(
    side=st.integers(5, 9),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    low=st.integers(0, 3),
    high=st.integers(0, 3),
)
def test_coverage_of_any_convolution_is_that_of_a_loop(side, kernel, stride, dilation, low, high):
    conv = nn.Conv(1, (kernel,), stride, [(low, high)], kernel_dilation=dilation)
    used, (outputs,) = convolution.coverage(conv, (side,))
    expected = brute_force_coverage(side, kernel, stride, dilation, low, high)
    assert (used.tolist(), outputs) == expected


CONVOLUTIONS = {
    "padded": nn.Conv(3, (3, 3), padding=1),
    "strided": nn.Conv(3, (3, 3), strides=2, padding=1),
    "point": nn.Conv(2, (1, 1), strides=2),
    "same": nn.Conv(2, (3, 2), strides=(2, 1), padding="SAME"),
    "same, dilated": nn.Conv(2, (3, 3), padding="SAME", kernel_dilation=2),
    "valid": nn.Conv(2, (2, 2), padding="VALID", kernel_dilation=2),
    "lopsided": nn.Conv(2, (3, 3), padding=((0, 2), (1, 0))),
    "grouped": nn.Conv(6, (3, 3), padding=1, feature_group_count=2),
    "depthwise": nn.Conv(4, (3, 3), padding=1, feature_group_count=4),
    "line": nn.Conv(3, 3, padding=1),
}


@pytest.mark.parametrize("conv", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_accumulates_are_the_outputs_of_a_convolution_with_ones(conv):
    # Each accumulate adds a weight once; with all weights 1 the outputs count them.
    x = jnp.asarray(RNG.integers(0, 4, (2, 3, 6, 4) if conv.kernel_size == 3 else (2, 3, 6, 5, 4)))
    x = x.astype(jnp.float32)
    operands = {"input": x}
    shape = operations.layer_shape(conv, operands)
    ones = jax.tree.map(
        lambda p: jnp.ones(p.shape), jax.eval_shape(conv.init, jax.random.key(0), x)
    )
    ones["params"]["bias"] *= 0
    outputs = conv.apply(ones, x)
    counted = operations.input_units(conv, operands) * shape.fan_out
    np.testing.assert_array_equal(counted, outputs.sum(axis=tuple(range(2, outputs.ndim))))
    assert shape.bias_adds == outputs[0, 0].size
    assert shape.operands == {"input": x[0, 0].size}


@pytest.mark.parametrize("conv", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_macs_of_a_convolution_are_those_of_its_program(conv):
    x = jnp.zeros((1, 3, 6, 4) if conv.kernel_size == 3 else (1, 3, 6, 5, 4))
    variables = jax.eval_shape(conv.init, jax.random.key(0), x)
    (product,) = programs.products(jax.make_jaxpr(conv.apply)(variables, x).jaxpr)
    shape = operations.layer_shape(conv, {"input": x})
    assert product.macs == shape.macs * shape.time_steps == 3 * shape.macs
    assert product.primitive == shape.primitives[0]


@pytest.mark.parametrize(
    ("conv", "message"),
    [
        (nn.Conv(1, (3, 3), padding="CIRCULAR"), "padding='CIRCULAR'"),
        (nn.Conv(1, (3, 3), input_dilation=2), "input_dilation=2"),
    ],
)
def test_convolutions_that_cannot_be_counted_are_refused(conv, message):
    with pytest.raises(ValueError, match=message):
        operations.layer_shape(conv, {"input": jnp.zeros((1, 2, 4, 4, 1))})


def brute_force_attention(q, k, v):
    """Additions of one head [N, d] in both orders, for each spike, the sparser factor first."""
    N, d = q.shape
    rows = dict.fromkeys("qkv", 0)
    for name, spikes in zip("qkv", (q, k, v), strict=True):
        for token, channel in np.ndindex(N, d):
            rows[name] += spikes[token, channel] != 0
    # kᵀ v: a spike of k adds a row of v (d numbers), or one of v a row of k; then q picks rows.
    # q kᵀ: a spike of q adds a column of k (N numbers), or one of k a column of q; then v.
    return d * (min(rows["k"], rows["v"]) + rows["q"]), N * (min(rows["q"], rows["k"]) + rows["v"])


@pytest.mark.parametrize(("tokens", "order"), [(9, 0), (3, 1)])
def test_attention_is_counted_in_the_order_that_is_computed(tokens, order):
    q, k, v = (spikes(1, 1, tokens, 4) for _ in "qkv")
    operands = {"q": q, "k": k, "v": v}
    attention = SpikingAttention(num_heads=1)
    shape = operations.layer_shape(attention, operands)
    expected = brute_force_attention(q[0, 0], k[0, 0], v[0, 0])[order]
    assert operations.input_units(attention, operands)[0, 0] * shape.fan_out == expected
    program = jax.make_jaxpr(lambda *x: attention.apply({}, *map(Signal.of, x)).values)(q, k, v)
    assert sum(p.macs for p in programs.products(program.jaxpr)) == shape.macs
    assert shape.plain_macs == 2 * tokens**2 * 4  # softmax(q kᵀ) v


class Plain(nn.Module):
    """Two linear layers without neurons, the second after the mean over time."""

    @nn.compact
    def __call__(self, x):  # B T C
        x = nn.Dense(5, name="out")(x)
        return nn.Dense(2, name="head", use_bias=False)(x.mean(1))


X = np.float32([[[1, 0, 1], [0, 0, 0]], [[1, 1, 1], [0, 3, 0]]])  # 2 images, 2 steps, 3 channels


def observed(x, mask=None):
    model = Plain()
    variables = model.init(jax.random.key(0), jnp.asarray(x))
    return energy.decode(energy.observe(model, variables, jnp.asarray(x), mask=mask)[1])


def test_a_linear_layer_counted_by_hand():
    seen = observed(X)
    np.testing.assert_array_equal(seen["units"]["out"], [5, 3])
    parts = seen["operands"]["out"]["input"]
    np.testing.assert_array_equal(parts["total"], [5, 3])
    np.testing.assert_array_equal(parts["integers"], [0, 1])
    np.testing.assert_array_equal(parts["others"], [0, 0])
    assert seen["operands"]["head"]["input"]["others"].tolist() == [10]


def test_examples_that_do_not_count_are_left_out():
    seen = observed(X, mask=jnp.array([False, True]))
    np.testing.assert_array_equal(seen["units"]["out"], [3, 3])
    np.testing.assert_array_equal(seen["operands"]["out"]["input"]["integers"], [0, 1])


@pytest.mark.parametrize("value", [0.25, -1.0, 128.0, np.nan, np.inf])
def test_a_single_value_that_is_no_small_integer_is_seen(value):
    x = X.copy()
    x[1, 0, 2] = value
    np.testing.assert_array_equal(observed(x)["operands"]["out"]["input"]["others"], [1, 0])


def test_sums_beyond_32_bits_are_exact():
    class Wide(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Conv(1, (63, 63), padding=31, name="conv")(x)

    x = jnp.full((40, 1, 31, 31, 2), 31.0)
    units = jax.jit(lambda x: energy.observe(Wide(), variables, x)[1])
    variables = {"params": {"conv": {"kernel": jnp.ones((63, 63, 2, 1)), "bias": jnp.zeros(1)}}}
    # Every window holds the whole image, so every pixel is used by every one.
    expected = 40 * 31 * 2 * (31 * 31) ** 2
    assert energy.decode(units(x))["units"]["conv"].tolist() == [expected]
    assert expected > 2**31


def test_a_batch_too_large_for_exact_sums_is_refused():
    with pytest.raises(ValueError, match="a batch of 40000 images is too large"):
        energy.observe(Plain(), {}, jax.ShapeDtypeStruct((40_000, 2, 3), jnp.float32))


# ---------------------------------------------------------------- nothing may be missed


class Extra(nn.Module):
    """A linear layer and something else that computes a product."""

    kind: str

    @nn.compact
    def __call__(self, x):  # B T C
        x = nn.Dense(4, name="out")(x)
        if self.kind == "einsum":
            return jnp.einsum("btc,dc->btd", x, jnp.ones((5, 4)))
        if self.kind == "scan":
            return jax.lax.scan(lambda c, a: (c, a @ c), jnp.ones((4, 4)), x.swapaxes(0, 1))[1]
        if self.kind == "layer":
            return nn.DenseGeneral(3, name="general")(x)
        if self.kind == "jit":
            return jax.jit(lambda a: a @ jnp.ones((4, 7)))(x)
        if self.kind == "twice":
            layer = nn.Dense(4, name="shared")
            return layer(layer(x))
        return x


@pytest.mark.parametrize("kind", ["einsum", "scan", "layer", "jit", "twice"])
def test_a_product_that_is_not_counted_is_an_error(kind):
    with pytest.raises(ValueError, match="do not cover this model.*dot_general of"):
        energy.model_shapes(Extra(kind), (2, 3))


class Gated(nn.Module):
    """Spikes of two layers that meet in some way that is no layer."""

    kind: str

    @nn.compact
    def __call__(self, images):  # B T C
        x = Signal.of(images)
        q, k = (
            LIF(name=f"{name}_lif")(Linear(5, name=name)(x)).keep().values for name in ("q", "k")
        )
        found = {
            "mul": lambda: q * k,
            "sum": lambda: jnp.sum(q * k, 1, keepdims=True) + q,
            "rescaled": lambda: q / (1 + k),
            "where": lambda: jnp.where(q > 0, k, 0),
            "and": lambda: ((q > 0) & (k > 0)).astype(jnp.float32),
            "square": lambda: (q + k) ** 2,
            "min": lambda: jnp.minimum(q, k),
            "or": lambda: ((q > 0) | (k > 0)).astype(jnp.float32),
            "prod": lambda: jnp.prod(jnp.stack([q, k]), 0),
            "cumprod": lambda: jnp.cumprod(q + k, 1),
            "all": lambda: jnp.all(jnp.stack([q > 0, k > 0]), 0).astype(jnp.float32),
            "gather": lambda: jnp.take_along_axis(k, q.astype(int), -1, mode="clip"),
            "jit": lambda: jax.jit(jnp.multiply)(q, k),
            "scan": lambda: jax.lax.scan(
                lambda c, a: (c + a[0] * a[1], c), q[:, 0], (q.swapaxes(0, 1), k.swapaxes(0, 1))
            )[1].swapaxes(0, 1),
            "window": lambda: jax.lax.reduce_window(
                q, 1.0, jax.lax.mul, (1, 1, 5), (1, 1, 1), "SAME"
            ),
            "least": lambda: jax.lax.reduce_window(
                q, jnp.inf, jax.lax.min, (1, 1, 5), (1, 1, 1), "SAME"
            ),
            "clamp": lambda: jax.lax.clamp(0.0, q, k),
            "greater": lambda: (q > k).astype(jnp.float32),
            "equal": lambda: (q == k).astype(jnp.float32),
            "shift": lambda: (q.astype(int) << k.astype(int)).astype(jnp.float32),
            "cond": lambda: jax.lax.cond(q.sum() > 0, lambda: k, lambda: 0 * k),
            "fft": lambda: jnp.fft.fft(q).real,
            "callback": lambda: jax.pure_callback(np.multiply, jax.typeof(q), q, k),
            "neuron": lambda: LIF(name="out_lif")(q * k),
            "free": lambda: 2 * q - k / 3 + jnp.maximum(q, k) * jnp.arange(5.0) + (q > 0.5),
            "gate": lambda: Gate(name="gate")(*map(Signal.of, (q, k))).values,
        }
        return Linear(2, name="last")(Signal.of(found[self.kind]())).values


@pytest.mark.parametrize(
    ("kind", "primitive"),
    [
        *(("mul", "mul"), ("sum", "mul"), ("jit", "mul"), ("scan", "mul"), ("neuron", "mul")),
        *(("rescaled", "div"), ("where", "select_n"), ("and", "and"), ("square", "integer_pow")),
        *(("min", "min"), ("or", "or"), ("prod", "reduce_prod"), ("all", "reduce_and")),
        *(("gather", "gather"), ("cumprod", "cumprod"), ("window", "mul"), ("clamp", "clamp")),
        *(("least", "reduce_window_min"), ("greater", "gt"), ("equal", "eq"), ("cond", "cond")),
        *(("shift", "shift_left"), ("fft", "fft"), ("callback", "pure_callback")),
    ],
)
def test_a_product_of_two_signals_that_is_no_layer_is_refused(kind, primitive):
    with pytest.raises(ValueError, match=f"computed but not counted: .*{primitive} of"):
        energy.model_shapes(Gated(kind), (2, 3))


@pytest.mark.parametrize("kind", ["free", "gate"])
def test_weights_and_layers_may_multiply_signals(kind):
    shapes = energy.model_shapes(Gated(kind), (2, 3))
    assert ("gate" in shapes.layers) == (kind == "gate")
    assert list(shapes.neurons) == ["q_lif", "k_lif"]


def test_the_products_of_a_scan_count_once_for_each_step():
    program = jax.make_jaxpr(Extra("scan").init_with_output)(jax.random.key(0), jnp.ones((1, 6, 4)))
    found = [p for p in programs.products(program.jaxpr) if p.macs == 4 * 4]
    assert len(found) == 6


def test_a_counted_model_passes_and_lists_its_layers():
    shapes = energy.model_shapes(Extra("none"), (2, 3))
    assert list(shapes.layers) == ["out"]
    assert shapes.neurons == {}


def test_an_operation_that_is_replaced_counts_in_models_traced_before(monkeypatch):
    dense = OPERATIONS[nn.Dense]
    monkeypatch.setitem(OPERATIONS, nn.Dense, dense)  # put back behind the test

    class Replaced(dense):
        @staticmethod
        def units(module, input):
            return 2 * dense.units(module, input)

        @staticmethod
        def shape(module, input):
            return dataclasses.replace(dense.shape(module, input), fan_out=3 * module.features)

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):  # B T C
            return nn.Dense(4)(x)

    images = spikes(2, 3, 5)
    variables = Plain().init(jax.random.key(0), images)
    before = energy.energy_report(Plain(), variables, images).accumulates
    assert before == 4 * images.sum() / 2
    operations.register_operation(nn.Dense, Replaced)
    assert energy.energy_report(Plain(), variables, images).accumulates == 2 * 3 * before


@pytest.mark.parametrize(
    ("layer", "x", "message"),
    [
        (nn.Conv(1, (3, 3)), jnp.zeros((1, 2, 2, 4, 4, 1)), "needs an input"),
        (nn.Dense(1), jnp.zeros(3), "needs an input"),
    ],
)
def test_inputs_without_batch_and_time_are_refused(layer, x, message):
    with pytest.raises(ValueError, match=message):
        operations.named_operands(layer.bind({}), (x,))


def test_time_folded_into_the_batch_is_refused():
    class Folded(nn.Module):
        @nn.compact
        def __call__(self, x):  # B T C
            return nn.Dense(4, name="out")(x.reshape(-1, x.shape[-1]))

    with pytest.raises(ValueError, match=r"out: its input \(2, 3\) must begin with the batch of 1"):
        energy.model_shapes(Folded(), (2, 3))
