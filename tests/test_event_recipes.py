"""The published recipes for event cameras, and the loss at each time step that one of them has."""

import pathlib

import by_path
import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import snnvit_jax as snn
from snnvit_jax import training
from snnvit_jax.layers.head import STEP_LOGITS
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import experiment
from snnvit_jax.training import step
from snnvit_jax.training.objective import Objective, StepLosses

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def module_of(name):
    return by_path.module(CONFIGS / f"{name}.py")


# (file, family) -> (model, T, target, side; epochs, of warm-up and cool-down, batch, seed;
# optimiser, rates from warm-up to the last, weight decay; mixup, its probability, epoch after it;
# flip, operations, sum of both polarities; loss at each step)
_MIXED = (0.5, 0.5, 75)
_AUGMENTED, _NOT = (True, "published", False), (False, "none", False)
PUBLISHED = {
    ("cifar10_dvs", "spikformer"): (
        *("spikformer_2_256_dvs", 16, 8, 128, 106, (10, 10), 16, 2021),
        *("adamw", (1e-5, 1e-3, 1e-5), 0.06, _MIXED, _AUGMENTED, False),
    ),
    ("cifar10_dvs", "spikingformer"): (
        *("spikingformer_2_256_dvs", 16, 8, 128, 106, (10, 10), 16, 2021),
        *("adamw", (1e-5, 1e-3, 1e-5), 0.06, _MIXED, _AUGMENTED, False),
    ),
    ("cifar10_dvs", "qkformer"): (
        *("qkformer_2_256_dvs", 16, 8, 128, 106, (10, 10), 16, 2021),
        *("adamw", (1e-5, 5e-3, 1e-5), 0.06, _MIXED, _AUGMENTED, False),
    ),
    ("cifar10_dvs", "sdt"): (
        *("sdt_2_256_dvs", 10, 5, 64, 210, (10, 10), 32, 42),
        *("adamw", (1e-3, 7.5e-3, 3e-4), 1e-4, (0.0, 1.0, None), _NOT, True),
    ),
    ("cifar10_dvs", "spikingresformer"): (
        *("spikingresformer_cifar", 16, 8, 64, 300, (3, 0), 8, 12450),
        *("adamw", (1e-5, 5e-4, 1e-5), 0.05, (0.0, 1.0, None), (False, "none", True), False),
    ),
    ("dvs_gesture", "spikingformer"): (
        *("spikingformer_2_256_dvs", 16, 8, 128, 202, (10, 10), 16, 2021),
        *("adamw", (1e-5, 1e-3, 1e-5), 0.06, _MIXED, _AUGMENTED, False),
    ),
    ("dvs_gesture", "qkformer"): (
        *("qkformer_2_256_dvs", 16, 8, 128, 202, (10, 10), 16, 2021),
        *("adamw", (1e-5, 1e-3, 2e-5), 0.06, _MIXED, _AUGMENTED, False),
    ),
    ("dvs_gesture", "sdt"): (
        *("sdt_2_256_dvs", 10, 5, 128, 210, (10, 10), 16, 42),
        *("lamb", (1e-5, 2e-3, 1e-5), 1e-4, (0.0, 1.0, None), _NOT, False),
    ),
    ("dvs_gesture", "sdt_16"): (
        *("sdt_2_256_dvs", 16, 8, 128, 210, (10, 10), 16, 42),
        *("lamb", (1e-6, 3e-4, 1e-5), 6e-2, (0.0, 1.0, None), _NOT, False),
    ),
    ("dvs_gesture", "spikingresformer"): (
        *("spikingresformer_dvsg", 16, 8, 64, 300, (3, 0), 8, 12450),
        *("adamw", (1e-5, 1e-4, 1e-5), 0.05, (0.0, 1.0, None), (False, "none", True), False),
    ),
}


@pytest.mark.parametrize(("file", "family"), PUBLISHED)
def test_the_published_settings(file, family):
    c = module_of(file).get_config(family)
    config_lib.validate(c)
    o, m, events = c.optimizer, c.mixing, c.data.events
    off = None if m.off is None else round(m.off * c.epochs)
    around = round(o.warmup * c.epochs), round(o.cooldown * c.epochs)
    rates = (o.warmup_learning_rate, o.learning_rate, o.min_learning_rate)
    assert PUBLISHED[file, family] == (
        *(c.model.name, c.model.time_steps, c.target_time_steps, c.data.image_size),
        *(c.epochs, around, c.batch_size, c.seed, o.name, rates, o.weight_decay),
        *((m.mixup_alpha, m.probability, off),),
        *((c.data.flip, events.operations, events.sum_channel), c.step_losses.on),
    )
    assert (o.schedule, o.label_smoothing, m.cutmix_alpha) == ("epoch_cosine", 0.1, 0.0)
    assert (c.data.name, events.split_by) == ("events", "number")
    assert events.split_order == ("name" if file == "cifar10_dvs" else "number")
    assert (events.height, events.width) == (128, 128)


@pytest.mark.parametrize("file", ["cifar10_dvs", "dvs_gesture", "digits_dvs"])
def test_every_variant_makes_the_model_that_it_names(file):
    module = module_of(file)
    if file == "digits_dvs":
        variants = list(module.MODELS)
    else:
        assert {(file, name) for name in module.FAMILIES} == {k for k in PUBLISHED if k[0] == file}
        variants = [*module.FAMILIES, "smoke", *(f"{name}:smoke" for name in module.FAMILIES)]
    for variant in variants:
        c = module.get_config(variant)
        config_lib.validate(c)
        neuron = experiment.model_of(c.model, 10, c.data.image_size).config.neuron
        assert neuron.tau == (1.5 if "spikingformer" in c.model.name else 2.0)
        assert c.target_time_steps < c.model.time_steps
    with pytest.raises(ValueError, match=f"='other' of configs/{file}.py; use "):
        module.get_config("other")


def test_time_steps_and_attention_of_gesture_are_those_of_its_authors():
    c = module_of("dvs_gesture").get_config("sdt")
    model = experiment.model_of(c.model, 11, c.data.image_size)
    assert (model.config.dvs_mode, model.config.patch_stride) == (False, 8)
    c = module_of("cifar10_dvs").get_config("sdt")
    model = experiment.model_of(c.model, 10, c.data.image_size)
    assert (model.config.dvs_mode, model.config.patch_stride) == (True, 4)
    assert module_of("dvs_gesture").get_config("qkformer").model.mlp_ratio == 4


# ---------------------------------------------------------------- a loss at each time step


@pytest.fixture(scope="module")
def golden():
    return golden_files.read("sdt_dvs_small")


@pytest.fixture(scope="module")
def arrays():
    with np.load(golden_files.FOLDER / "sdt_dvs_small.npz") as file:
        return dict(file)


def test_the_loss_of_all_steps_is_the_published_one(golden, arrays):
    logits = np.moveaxis(arrays["train/logits_t"], 0, 1)
    targets = np.eye(10)[golden.labels]
    losses = StepLosses().losses(jnp.asarray(logits), targets)
    assert np.mean(losses) == pytest.approx(float(arrays["train/tet_loss"]), rel=1e-6)
    plain = Objective().losses(jnp.asarray(logits.mean(1)), None, targets)
    assert np.mean(plain) == pytest.approx(golden.train.loss, rel=1e-6)


def test_a_training_step_judges_the_published_logits_of_each_step(golden, arrays):
    model = golden.model()
    variables = snn.convert.from_torch(model, golden.weights)
    procedure = training.Procedure(
        model, optax.sgd(0.0), Objective(step_losses=StepLosses(), label_smoothing=0.0)
    )
    state = training.state_from_variables(procedure, variables)
    images = jnp.asarray(golden.images)
    batch = {"image": images, "label": golden.labels, "mask": np.ones(4, np.float32)}
    batch |= {"target": np.eye(10, dtype=np.float32)[golden.labels], "weight": np.ones(4)}

    def loss(params):
        found, _ = step.loss_fn(
            params, variables["batch_stats"], state, batch, jax.random.key(0), procedure
        )
        _, new = model.apply(
            {**variables, "params": params},
            images,
            train=True,
            mutable=["batch_stats", STEP_LOGITS],
        )
        return found, jax.tree.leaves(new[STEP_LOGITS])[0]

    found, logits = jax.jit(loss)(variables["params"])
    np.testing.assert_allclose(jnp.moveaxis(logits, 1, 0), arrays["train/logits_t"], 0, 1e-5)
    assert float(found) == pytest.approx(float(arrays["train/tet_loss"]), rel=1e-6)
