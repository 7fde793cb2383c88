"""A neuron written outside the package: everything works with it, and nothing is changed for it."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from quickly import QUICKLY

import snnvit_jax as snn
from snnvit_jax import neurons
from snnvit_jax.evaluation import early_exit
from snnvit_jax.neurons import MembraneNeuron, Neuron, Update, fire
from snnvit_jax.runs.config import default_config
from snnvit_jax.time_steps import masks

T = 3


@dataclasses.dataclass(frozen=True)
class GainNeuron(MembraneNeuron):
    """Leaky, with a learned gain of its current: the same as a learned threshold."""

    kind: ClassVar[str] = "gain"

    def parameters(self, time_steps, threshold):
        return {"gain": lambda key: jnp.float32(1.0)}

    def charge(self, membrane, current, parameters):
        return membrane + (parameters["gain"] * current - membrane) / 2


@dataclasses.dataclass(frozen=True)
class AdaptiveNeuron(Neuron):
    """Leaky, with a threshold that rises by a learned amount with each spike, and decays.

    Attributes:
      decay: of what has been added to the threshold, in [0, 1).
    """

    kind: ClassVar[str] = "adaptive"
    decay: float = 0.5

    def parameters(self, time_steps, threshold):
        return {"rise": lambda key: jnp.float32(0.2)}

    def run(self, current, threshold, parameters, axis=0):
        rise = parameters["rise"].astype(current.dtype)

        def step(state, x):
            membrane, added = state
            charged = membrane + (x - membrane) / 2
            spike = fire(charged - threshold - added, self.surrogate, self.alpha)
            return (charged * (1 - spike), self.decay * added + rise * spike), spike

        moved = jnp.moveaxis(current, axis, 0)
        rest = (jnp.zeros_like(moved[0]), jnp.zeros_like(moved[0]))
        return jnp.moveaxis(jax.lax.scan(step, rest, moved)[1], 0, axis)

    def update(self, time_steps):
        return Update(macs=2)


OWN = {"gain": (GainNeuron(), 1), "adaptive": (AdaptiveNeuron(decay=0.25), 2)}


class Ready(NamedTuple):
    model: Any
    variables: dict
    images: np.ndarray
    macs: int  # of an update


@pytest.fixture(scope="module", params=OWN)
def own(request, lively):
    """A small model of such neurons with a schedule that has gaps."""
    neuron, macs = OWN[request.param]
    settings = {"image_size": 8, "time_steps": T, "embed_dim": 16, "num_heads": 2, "depth": 1}
    model = snn.create_model("spikformer_2_384", 3, neuron=neuron, **settings)
    leaky = snn.create_model("spikformer_2_384", 3, **settings)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    variables = filled(jax.eval_shape(model.init, jax.random.key(0), images), lively(leaky))
    return Ready(model, variables, images, macs)


def filled(shapes, variables):
    """Variables of a leaky model, with 0.3 or 1.2 for what only the other model has."""
    flat, found = (traverse_util.flatten_dict(x) for x in (shapes, variables))
    own = {path for path in flat if path not in found}
    assert {path[-1] for path in own} <= {"gain", "rise"}
    found |= {path: jnp.float32(1.2 if path[-1] == "gain" else 0.3) for path in own}
    return traverse_util.unflatten_dict(found)


def scheduled(own, seed=1):
    rng = np.random.default_rng(seed)
    names = masks.scores(own.variables["params"])
    schedule = snn.TimeStepSchedule({name: rng.random(T) < 0.7 for name in names})
    return schedule, snn.with_schedule(own.variables, schedule)


def test_it_trains(own):
    labels = jnp.array([0, 2])

    def loss(params):
        variables = own.variables | {"params": params}
        logits, _ = own.model.apply(variables, own.images, train=True, mutable=["batch_stats"])
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(2), labels])

    step = jax.jit(jax.value_and_grad(loss), compiler_options=QUICKLY)
    params = own.variables["params"]
    first, gradient = step(params)
    flat = traverse_util.flatten_dict(gradient)
    learned = [g for path, g in flat.items() if path[-1] in ("gain", "rise")]
    assert len(learned) == len(masks.scores(params))
    assert np.count_nonzero(learned) > len(learned) / 2
    for _ in range(10):
        params = jax.tree.map(lambda p, g: p - 0.01 * g, params, step(params)[1])
    assert step(params)[0] < 0.9 * first


def test_it_is_recorded(own):
    run = jax.jit(
        lambda v: own.model.apply(v, own.images, mutable=["spikes"]), compiler_options=QUICKLY
    )
    spikes = snn.spikes(run(own.variables)[1])
    assert list(spikes) == snn.layer_names(own.model)
    assert all(set(np.unique(x)) <= {0.0, 1.0} for x in spikes.values())
    assert sum(x.any() for x in spikes.values()) > len(spikes) / 2


def test_it_is_deployed_and_the_file_says_what_it_is(own, tmp_path):
    schedule, variables = scheduled(own)
    deployed = snn.deploy(own.model, own.variables, schedule)
    expected = jax.jit(own.model.apply, compiler_options=QUICKLY)(variables, own.images)
    np.testing.assert_allclose(deployed(own.images), expected, rtol=1e-5, atol=1e-5)
    assert sum(map(len, deployed.steps.values())) < sum(m.sum() for m in schedule.masks.values())
    deployed.save(tmp_path / "own.snn")
    loaded = snn.load_deployed(tmp_path / "own.snn")
    assert loaded.about["config"]["neuron"] == neurons.describe(own.model.config.neuron)
    np.testing.assert_array_equal(loaded(own.images), deployed(own.images))


def test_its_energy_is_counted(own):
    report = snn.energy_report(own.model, own.variables, own.images)
    count = sum(layer.shape.neurons for layer in report.neurons.values())
    assert report.membrane_updates == count * T
    picojoule = report.membrane_microjoule * 1e6
    assert picojoule == pytest.approx(count * T * own.macs * report.accounting.mac)


def test_it_exits_early(own):
    _, variables = scheduled(own)
    running = jax.jit(
        lambda v, x: early_exit.running_logits(own.model, v, x), compiler_options=QUICKLY
    )(variables, own.images)
    expected = jax.jit(own.model.apply, compiler_options=QUICKLY)(variables, own.images)
    np.testing.assert_allclose(running[-1], expected, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- by name


@pytest.fixture
def kinds(monkeypatch):
    """The table of kinds, which is as before after the test."""
    monkeypatch.setattr(neurons.kinds, "KINDS", dict(neurons.KINDS))
    return neurons.kinds.KINDS


def test_a_registered_neuron_is_found_by_the_kind_of_a_configuration(kinds):
    assert snn.register_neuron(AdaptiveNeuron) is AdaptiveNeuron
    config = default_config()
    config.model.neuron.kind = "adaptive"
    model = snn.create_model("spikformer_2_384", neuron=config.model.neuron)
    assert model.config.neuron == AdaptiveNeuron()
    assert neurons.create_neuron("adaptive", decay=0.1) == AdaptiveNeuron(decay=0.1)
    snn.register_neuron(AdaptiveNeuron)  # once more does no harm


def test_an_unregistered_neuron_is_not_found_by_name(kinds):
    with pytest.raises(ValueError, match=r"unknown neuron kind='adaptive'; use one of lif, if"):
        neurons.create_neuron("adaptive")


def test_a_name_that_is_taken_or_missing_is_refused(kinds):
    class Nameless(Neuron):
        pass

    class Imposter(Neuron):
        kind = "lif"

    with pytest.raises(ValueError, match=r"Nameless needs .* kind of its own, got kind=None"):
        snn.register_neuron(Nameless)
    with pytest.raises(ValueError, match=r"Imposter needs .* kind of its own, got kind='lif'"):
        snn.register_neuron(Imposter)


@pytest.mark.parametrize("given", [None, "lif", AdaptiveNeuron(), dict, int])
def test_what_is_no_class_of_neurons_is_refused(kinds, given):
    before = dict(kinds)
    with pytest.raises(ValueError, match="register_neuron takes a class derived from Neuron, got"):
        snn.register_neuron(given)
    assert before == kinds


def test_what_has_to_be_overridden_says_so():
    current = jnp.ones((4, 2))
    with pytest.raises(NotImplementedError, match="Neuron must override run"):
        Neuron().run(current, 1.0, {})
    with pytest.raises(NotImplementedError, match="MembraneNeuron must override charge"):
        MembraneNeuron().run(current, 1.0, {})
