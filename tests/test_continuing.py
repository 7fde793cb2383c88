"""A run that is continued with other settings: every key goes on, or is refused by its name."""

import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from snnvit_jax import training
from snnvit_jax.checkpoints.best import Measured
from snnvit_jax.checkpoints.checkpoints import Checkpoints, load_variables
from snnvit_jax.models import variable_shapes
from snnvit_jax.neurons import KINDS
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import experiment, loop, networks, validation

STEP = 16  # the two epochs of the run: 1,437 examples in batches of 180, 7.98 steps each


def tiny_config(**changes):
    """A network whose training step is traced in seconds."""
    config = config_lib.default_config()
    config.epochs = 2
    config.batch_size = 180
    config.target_time_steps = 1.5
    config.time_step_penalty = 2.0
    config.time_step_anneal = 0.5
    config.time_step_freeze = 0.75
    config.mixing.mixup_alpha = 0.5
    config.mixing.off = 0.5
    config.model.time_steps = 2
    config.model.embed_dim = 16
    config.model.num_heads = 2
    config.model.depth = 1
    config.data.image_size = 8
    config.update_from_flattened_dict(changes)
    return config


def open_run(config, folder):
    """A run as it begins or goes on, which lets go of its folder."""
    run = loop.Run(config, folder)
    run.close()
    return run


def leave_run(folder, config, step=STEP):
    """Leaves a folder as a run does that has come to a step, without training."""
    run = open_run(config, folder)
    run.workdir.write_config(config, 0)
    with Checkpoints(run.workdir.checkpoints) as checkpoints:
        checkpoints.save(step, run.state.replace(step=jnp.int32(step)), Measured(0.5))
    return folder


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """The folder of a finished run; nothing writes to it."""
    return leave_run(tmp_path_factory.mktemp("run") / "work", tiny_config())


@pytest.fixture
def copy(left, tmp_path):
    return pathlib.Path(shutil.copytree(left, tmp_path / "work"))


def leaves(config, prefix=""):
    for key, value in config.items():
        if isinstance(value, type(config)):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@pytest.fixture
def known_state(left, monkeypatch):
    """Creates states from the variables of the run: a model takes seconds to trace."""
    monkeypatch.setattr(loop.Run, "_bytes_to_write", lambda self: 0)
    variables = load_variables(left / "checkpoints")
    monkeypatch.setattr(
        experiment.Experiment,
        "_create",
        lambda self, key: training.state_from_variables(self.procedure, variables),
    )


# Every key with another value, and what that one needs besides.
ALONE = {
    "epochs": 3.0,
    "mesh.data": 1,
    "sharding": "fsdp",
    "trainable": "scores",
    "extend": "restart_schedule",
    "schedule_start_epoch": 0.25,
    "schedule_epochs": 1.5,
    "time_step_penalty": 3.0,
    "target_time_steps": 1.25,
    "spike_penalty": 0.1,
    "min_time_steps": {"min_time_steps": 2, "target_time_steps": 2.0},
    "time_step_groups": "module",
    "time_step_start": 0.1,
    "time_step_start_epoch": 0.1,
    "time_step_anneal": 0.25,
    "time_step_anneal_epochs": 0.25,
    "time_step_freeze": 0.8,
    "time_step_freeze_epoch": 1.75,
    "model.remat": "block",
    "data.random_resized_crop": True,
    "optimizer.learning_rate": 2e-3,
    "optimizer.min_learning_rate": 2e-5,
    "optimizer.warmup_learning_rate": 2e-5,
    "optimizer.warmup": 0.2,
    "optimizer.warmup_epochs": 0.5,
    "optimizer.schedule": "epoch_cosine",
    "optimizer.cooldown": 0.25,
    "optimizer.cooldown_epochs": 0.25,
    "optimizer.weight_decay": 0.0,
    "optimizer.score_multiplier": 1.0,
    "optimizer.multipliers": (("head", 0.5),),
    "optimizer.clip_norm": 1.0,
    "optimizer.trust_clip": True,
    "optimizer.label_smoothing": 0.0,
}
# Those that have nothing to do with what a checkpoint holds change together, which is quicker.
TOGETHER = {
    "data": {
        "data.dir": "/nowhere",
        "data.eval_split": "train",
        "data.image_size": 16,
        "data.crop_padding": 1,
        "data.crop_scale": (0.5, 1.0),
        "data.crop_ratio": (1.0, 1.0),
        "data.flip": True,
        "data.randaugment.num_ops": 1,
        "data.randaugment.magnitude": 5.0,
        "data.randaugment.magnitude_std": 0.1,
        "data.randaugment.probability": 0.1,
        "data.randaugment.operations": "cifar",
        "data.erasing_probability": 0.1,
        "data.erasing_fill": "noise",
        "data.crop_fraction": 0.875,
        "data.mean": (0.5,),
        "data.std": (0.5,),
        "data.events.height": 34,
        "data.events.width": 34,
        "data.events.sort": True,
        "data.events.cache": "/nowhere",
        "data.events.sum_channel": True,
        "data.events.roll": 2,
        "data.events.operations": "published",
        "data.on_damaged": "skip",
        "data.workers": 1,
    },
    "model": {
        "model.drop_path": 0.1,
        "model.dtype": "bfloat16",
        "model.neuron.surrogate": "arctan",
        "model.neuron.alpha": 2.0,
        "model.neuron.detach_reset": False,
        "model.neuron.estimator": "clipped",
    },
    "mixing": {
        "mixing.mixup_alpha": 0.25,
        "mixing.cutmix_alpha": 0.25,
        "mixing.cutmix_share": 0.25,
        "mixing.probability": 0.25,
        "mixing.off": 0.25,
        "mixing.off_epoch": 0.75,
    },
    "others": {
        "accumulate": 2,
        "on_nonfinite": "skip",
        "distillation.teacher": "OWN FOLDER",
        "distillation.weight": 0.25,
        "distillation.temperature": 1.0,
        "step_losses.on": True,
        "step_losses.weight": 0.01,
        "step_losses.level": 0.5,
        "log_every_steps": 3,
        "eval_every_epochs": 0.5,
        "save_every_seconds": 0.0,
        "keep_checkpoints": 3,
    },
}
REFUSED = {
    "seed": 1,
    "batch_size": 90,
    "average_decay": 0.9,
    "init_from": "elsewhere",
    "mesh.model": 2,  # there is one device
    "data.name": "cifar10",
    "data.train_split": "train[:90%]",
    "data.repeats": 2,
    "data.events.split_by": "time",
    "data.events.split_order": "name",
    "optimizer.name": "lamb",
    "model.name": "spikformer_4_256",
    "model.time_steps": 4,
    "model.embed_dim": 32,
    "model.num_heads": 4,
    "model.depth": 2,
    "model.mlp_ratio": 2.0,
    "model.pool": (False, True, True, True),
    "model.neuron.kind": "plif",
    "model.neuron.tau": 3.0,
    "model.neuron.reset": "soft",
    "model.neuron.levels": 5,
}


def test_the_table_holds_every_key():
    together = [key for changes in TOGETHER.values() for key in changes]
    assert sorted([*ALONE, *together, *REFUSED]) == sorted(leaves(config_lib.default_config()))


def continued(left, changes):
    """The finished run, continued; its state is the one left, and its optimiser works on it."""
    own = {key: str(left) if value == "OWN FOLDER" else value for key, value in changes.items()}
    run = open_run(tiny_config(**own), left)
    assert int(run.state.step) == STEP
    params, opt_state = run.state.params, run.state.opt_state
    after = jax.eval_shape(run.experiment.procedure.optimizer.update, params, opt_state, params)
    assert jax.tree.structure(after) == jax.tree.structure((params, opt_state))
    return run


@pytest.mark.parametrize("key", ALONE)
def test_a_run_goes_on_with_another_value(left, known_state, key):
    value = ALONE[key]
    run = continued(left, value if isinstance(value, dict) else {key: value})
    assert run._changed, "the change is told"


@pytest.mark.parametrize("name", TOGETHER)
def test_a_run_goes_on_with_other_values(left, known_state, name):
    told = "\n".join(continued(left, TOGETHER[name])._changed)
    for key in TOGETHER[name]:
        assert f"{key}: " in told or (key.startswith("mixing.off") and "no mixing from" in told)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_checkpoint_holds_of_a_model_is_the_same(kind):
    changes = TOGETHER["model"] | {"model.neuron.kind": kind}
    own, other = (
        variable_shapes(networks.model_of(tiny_config(**x).model, 10, 8), (8, 8, 1))
        for x in ({"model.neuron.kind": kind}, changes)
    )
    assert jax.tree.leaves_with_path(own) == jax.tree.leaves_with_path(other)


@pytest.mark.parametrize("key", REFUSED)
def test_a_run_does_not_go_on_with_what_its_checkpoints_depend_on(left, key):
    why = "(the checkpoints hold|the run began|what was|the model has learned)"
    message = f"holds another run.*{re.escape(key)}: .* -> .*, but {why}"
    if key == "mesh.model":
        message = "mesh=.* does not fit 1 devices"
    with pytest.raises(ValueError, match=message):
        open_run(tiny_config(**{key: REFUSED[key]}), left)


def test_nothing_is_told_if_nothing_changes(left, known_state):
    assert open_run(tiny_config(), left)._changed == []


# An optimiser's state as versions before this one kept it: the chain depended on settings.


def former_optimizer(settings, trainable):
    parts = [
        optax.adamw(lambda step: 1e-3, weight_decay=0.05, mask=_are_matrices),
        optax.masked(optax.scale(2.0), _are_matrices),
    ]
    if settings.multipliers:
        parts.append(optax.stateless(lambda updates, _: updates))
    if settings.clip_norm is not None:
        parts.insert(0, optax.clip_by_global_norm(settings.clip_norm))
    if trainable == "scores":
        parts.append(optax.masked(optax.set_to_zero(), _are_matrices))
    return optax.chain(*parts)


def _are_matrices(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer.clip_norm": 1.0},
        {"optimizer.multipliers": (("head", 0.5),)},
        {"trainable": "scores"},
        {
            **{"optimizer.clip_norm": 1.0, "optimizer.multipliers": (("head", 0.5),)},
            "trainable": "scores",
        },
    ],
)
def test_a_state_of_an_earlier_version_is_taken_over(left, known_state, tmp_path, changes):
    config = tiny_config(**changes)
    run = open_run(config, left)
    opt_state = former_optimizer(config.optimizer, config.trainable).init(run.state.params)
    numbered = iter(range(10**6))
    opt_state = jax.tree.map(lambda leaf: jnp.full_like(leaf, next(numbered)), opt_state)
    with Checkpoints(tmp_path / "work" / "checkpoints") as checkpoints:
        checkpoints.save(STEP, run.state.replace(opt_state=opt_state))
    for other in (tiny_config(), config):
        found = open_run(other, tmp_path / "work").state
        jax.tree.map(np.testing.assert_array_equal, found.params, run.state.params)
        expected = optax.tree_utils.tree_get(opt_state, "mu")
        jax.tree.map(np.testing.assert_array_equal, found.opt_state[1].mu, expected)
        expected = optax.tree_utils.tree_get(opt_state, "nu")
        jax.tree.map(np.testing.assert_array_equal, found.opt_state[1].nu, expected)


# What becomes of the schedule.


def phases(run):
    procedure = run.experiment.procedure
    objective = procedure.objective
    times = (objective.start_step, objective.anneal_steps, objective.freeze_step)
    return (*times, procedure.mixing.off_step)


def rates(run, steps):
    return [float(run.experiment.learning_rate(step)) for step in steps]


FRESH = {  # start, anneal, freeze, mixing off: in steps
    2: (0, 8, 12, 8),
    3: (0, 12, 18, 12),
}


def test_a_longer_run_keeps_its_schedule_unless_it_is_told_otherwise(left, known_state):
    before = open_run(tiny_config(), left)
    run = open_run(tiny_config(epochs=3), left)
    assert run.experiment.total_steps == 24
    assert phases(run) == phases(before) == FRESH[2]
    assert rates(run, range(16)) == rates(before, range(16))
    np.testing.assert_allclose(rates(run, range(16, 24)), 1e-5, rtol=1e-6)
    assert run._changed == [
        "epochs: 2.0 -> 3.0: the schedule stays as planned, to epoch 2; after it the learning rate "
        "keeps its last value 1e-05 and the phases stay where they are (to begin the schedule "
        "again: --config.extend=restart_schedule; to spread it over all epochs: "
        "--config.extend=stretch_schedule)",
        "training to epoch 2 -> epoch 3",
    ]


def test_a_schedule_begins_again_if_wanted(left, known_state):
    run = open_run(tiny_config(epochs=3, extend="restart_schedule"), left)
    # Of the 8 steps left: scores learn at once, anneal in 4, freeze after 6; mixing ends after 4.
    assert phases(run) == (16, 4, 22, 20)
    low, high = 1e-5, 1e-3
    np.testing.assert_allclose(rates(run, (16, 17, 24)), [low, high, low], rtol=1e-4)
    told = run._changed
    assert told[0].endswith("warm-up, cosine and phases begin again here, at epoch 2.004")
    assert "masks fixed from epoch 1.5 -> epoch 2.75104" in told


def test_a_schedule_is_spread_over_all_if_wanted(left, known_state, tmp_path):
    run = open_run(tiny_config(epochs=3, extend="stretch_schedule"), left)
    fresh = open_run(tiny_config(epochs=3), tmp_path / "fresh")
    assert phases(run) == phases(fresh) == FRESH[3]
    assert rates(run, range(24)) == rates(fresh, range(24))
    assert f"learning rate of the next step: 1e-05 -> {rates(fresh, [16])[0]:.3g}" in run._changed


@pytest.mark.parametrize("extend", validation.EXTEND)
def test_a_longer_run_that_stops_goes_on_with_the_same_schedule(copy, known_state, extend):
    config = tiny_config(epochs=3, extend=extend)
    first = open_run(config, copy)
    leave_run(copy, config, step=20)
    first.workdir.write_config(first.experiment.config, STEP)
    again = open_run(config, copy)
    assert int(again.state.step) == 20
    assert phases(again) == phases(first)
    assert rates(again, range(24)) == rates(first, range(24))
    assert again._changed == []
    # Longer once more: its present schedule is what stays.
    longer = open_run(tiny_config(epochs=4), copy)
    assert phases(longer) == phases(first)
    np.testing.assert_allclose(rates(longer, range(24, 32)), 1e-5, rtol=1e-6)


def test_the_choice_may_be_made_when_the_run_is_longer_already(copy, known_state):
    first = open_run(tiny_config(epochs=3), copy)
    first.workdir.write_config(first.experiment.config, STEP)
    run = open_run(tiny_config(epochs=3, extend="restart_schedule"), copy)
    assert run._changed[0].startswith("extend: final_rate -> restart_schedule: warm-up, cosine and")
    assert phases(run) == (16, 4, 22, 20)


def test_a_shorter_run_shortens_its_schedule(known_state, tmp_path):
    folder = leave_run(tmp_path / "work", tiny_config(epochs=3), step=4)
    run = open_run(tiny_config(), folder)
    assert phases(run) == FRESH[2]
    assert "are spread anew, to end at 2" in run._changed[0]


def test_a_run_that_is_longer_than_wanted_says_that_nothing_is_left(left, known_state):
    run = open_run(tiny_config(epochs=1), left)
    assert run._changed[0] == (
        "epochs: 2.0 -> 1.0: epoch 2.004 is reached already, nothing is left to train"
    )


def test_phases_in_epochs_that_do_not_fit_a_schedule_begun_again_are_named(left, known_state):
    config = tiny_config(epochs=3, extend="restart_schedule", time_step_freeze_epoch=1.5)
    with pytest.raises(ValueError, match=r"time_step_freeze_epoch=1.5 and epochs=0.99"):
        open_run(config, left)
