import functools
import pathlib

import by_path
import hypothesis
import numpy as np
import pytest
from absl import flags
from hypothesis import strategies as st
from ml_collections import config_dict, config_flags

from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import experiment, validation
from snnvit_jax.runs.model_settings import Setting
from snnvit_jax.runs.workdir import Workdir

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def load(name, *args):
    return by_path.module(CONFIGS / f"{name}.py").get_config(*args)


def changed(key, value):
    config = config_lib.default_config()
    with config.ignore_type():
        config.update_from_flattened_dict({key: value})
    return config


@pytest.mark.parametrize("name", sorted(p.stem for p in CONFIGS.glob("*.py")))
def test_every_configuration_is_valid_and_documented(name):
    config_lib.validate(load(name))
    text = (CONFIGS / f"{name}.py").read_text()
    assert f"--config=configs/{name}.py" in text


def test_the_small_cifar_model_and_an_unknown_one():
    config_lib.validate(load("cifar10", "small"))
    with pytest.raises(ValueError, match="unknown variant='tiny'"):
        load("cifar10", "tiny")


def test_json_keeps_everything():
    config = load("cifar10")
    assert config_lib.from_json(config_lib.to_json(config)) == config


def test_numbers_of_numpy_are_kept_as_pythons():
    config = changed("data.mean", (np.float32(0.25), np.int64(0)))
    config_lib.validate(config)
    assert config_lib.from_json(config_lib.to_json(config)).data.mean == (0.25, 0)


def test_a_number_too_large_for_a_key_is_bad_input(tmp_path):
    (tmp_path / "config.json").write_text(f'{{"epochs": 1{"0" * 400}}}')
    with pytest.raises(
        ValueError, match=r"config.json is not a run's configuration: int too large"
    ):
        Workdir(tmp_path).read_config()


LEAVES = st.recursive(
    st.one_of(st.integers(-9, 9), st.floats(allow_nan=False), st.text(max_size=3)),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=8,
)


@hypothesis.given(st.lists(LEAVES, max_size=3).map(tuple))
def test_tuples_within_tuples_come_back(value):
    config = config_lib.default_config()
    config.optimizer.multipliers = value
    again = config_lib.from_json(config_lib.to_json(config))
    assert again == config
    assert again.optimizer.multipliers == value
    assert config_lib.differences(config, again) == []


def test_every_key_comes_back_with_another_value():
    other = {float: 0.5, int: 3, str: "other", bool: True, tuple: ((("a", 0.5), 1), ())}
    other[Setting] = (3, 5)
    config = config_lib.default_config()
    for key, value in config_dict_flat(config).items():
        kind = type(value) if value is not None else config_type(config, key)
        config.update_from_flattened_dict({key: other[kind]})
    again = config_lib.from_json(config_lib.to_json(config))
    assert again == config
    assert config_lib.differences(config, again) == []


def config_dict_flat(config, prefix=""):
    flat = {}
    for key, value in config.items():
        if isinstance(value, config_dict.ConfigDict):
            flat |= config_dict_flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def config_type(config, key):
    *parts, last = key.split(".")
    for part in parts:
        config = config[part]
    return config.get_type(last)


@pytest.mark.parametrize(
    ("arguments", "embed_dim"),
    [
        (["--config.model.embed_dim=(8, 16, 24, 24)"], (8, 16, 24, 24)),
        (["--config.model.embed_dim=8,16,24,24"], (8, 16, 24, 24)),
        (["--config.model.embed_dim", "[8, 16, 24, 24]"], (8, 16, 24, 24)),
        (["--config.model.embed_dim=32"], 32),
    ],
)
def test_tuples_come_from_the_command_line_and_through_a_folder(arguments, embed_dim):
    given = flags.FlagValues()
    path = f"--config={CONFIGS}/digits.py:metaspikeformer"
    argv = ["main", path, "--config.model.head_input=currents", *arguments]
    config_flags.DEFINE_config_file("config", flag_values=given, sys_argv=argv)
    given(argv)
    config = config_lib.from_json(config_lib.to_json(given.config))
    assert config_lib.differences(given.config, config) == []
    held = config.model.embed_dim
    assert (held if isinstance(held, int) else tuple(held)) == embed_dim
    if embed_dim == 32:
        with pytest.raises(ValueError, match="embed_dim=32 must be a tuple of 4, each a whole"):
            experiment.build(config)
    else:
        built = experiment.build(config).model.config
        assert (built.embed_dim, built.head_input) == (embed_dim, "currents")


def test_a_setting_of_another_family_is_refused_unless_it_is_left_open():
    config = load("digits", "metaspikeformer")
    config.model.update({"name": "sdt_2_256", "embed_dim": 64, "depth": 1})
    config_lib.validate(config)
    config.model.head_input = "spikes"
    with pytest.raises(ValueError, match=r"model.head_input='spikes': not among.*'sdt_2_256'"):
        config_lib.validate(config)


def test_differences_are_named():
    old, new = config_lib.default_config(), changed("model.time_steps", 6)
    assert config_lib.differences(old, new) == ["model.time_steps: 4 -> 6"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.time_steps", 0, "time_steps=0"),
        ("target_time_steps", 4.5, "target_time_steps=4.5"),
        ("target_time_steps", 0.5, "target_time_steps=0.5"),
        ("min_time_steps", 5, "min_time_steps=5"),
        ("epochs", 0, "epochs=0"),
        ("batch_size", 0, "batch_size=0"),
        ("time_step_penalty", -1.0, "time_step_penalty=-1.0"),
        ("time_step_freeze_epoch", -2.0, "time_step_freeze_epoch=-2.0"),
        ("time_step_start_epoch", 11.0, "time_step_start_epoch=11.0"),
        ("time_step_freeze_epoch", 11.0, "time_step_freeze_epoch=11.0 and epochs=10"),
        ("target_time_steps", 2.0, "target_time_steps=2.0 is reached by a time_step_penalty"),
        ("time_step_penalty", float("inf"), "time_step_penalty=inf"),
        ("seed", -1, "seed=-1"),
        ("accumulate", 3, "batch_size=64 must be divisible by accumulate=3"),
        ("trainable", "head", "trainable='head' must be one of all, scores"),
        ("average_decay", 1.0, "average_decay=1.0"),
        ("optimizer.name", "sgd", "optimizer.name='sgd' must be one of adamw, lamb$"),
        ("optimizer.clip_norm", 0.0, "optimizer.clip_norm=0.0"),
        (
            "optimizer.schedule",
            "step",
            "optimizer.schedule='step' must be .* cosine, epoch_cosine$",
        ),
        ("optimizer.score_multiplier", -1.0, "optimizer.score_multiplier=-1.0"),
        ("optimizer.learning_rate", 1e-6, "optimizer.min_learning_rate=1e-05 must not be above"),
        ("data.repeats", 0, "data.repeats=0"),
        ("data.on_damaged", "ignore", "data.on_damaged='ignore'"),
        ("model.dtype", "float16", "model.dtype='float16'"),
        ("model.remat", "all", "model.remat='all' must be one of none, block"),
        ("sharding", "zero", "sharding='zero' must be one of replicate, fsdp, tensor, fsdp_tensor"),
        ("optimizer.label_smoothing", 1.5, "optimizer.label_smoothing=1.5"),
        ("optimizer.learning_rate", 0.0, "optimizer.learning_rate=0.0"),
        ("log_every_steps", 0, "log_every_steps=0"),
    ],
)
def test_values_that_do_not_fit_are_named(key, value, message):
    with pytest.raises(ValueError, match=message):
        config_lib.validate(changed(key, value))


NAN, INF = float("nan"), float("inf")

# What is no value of any of the keys but those that stand beside it.
ODD = {
    NAN: (),
    INF: (),
    -INF: (),
    -1.5: (),
    "": (),
    (): ("optimizer.multipliers",),
    (NAN,): (),
    (-1,): (),
    ("",): (),
    ((),): (),
    ((1,),): (),
    (("a", NAN),): (),
    "\0": (
        *("init_from", "model.name", "data.name", "data.dir", "data.train_split"),
        *("data.eval_split", "distillation.teacher", "data.events.cache", "model.neuron.kind"),
        *("model.neuron.reset", "model.neuron.surrogate", "model.neuron.estimator"),
    ),
    b"x": (),
    1j: (),
    None: (
        *("average_decay", "init_from", "target_time_steps", "schedule_epochs"),
        *("time_step_start_epoch", "time_step_anneal_epochs", "time_step_freeze"),
        *("time_step_freeze_epoch", "optimizer.warmup_epochs", "optimizer.cooldown_epochs"),
        *("mixing.off", "data.events.height", "data.events.width", "data.events.cache"),
        *("model.embed_dim", "model.num_heads", "model.depth", "model.mlp_ratio", "model.pool"),
        *(f"model.neuron.{key}" for key in config_lib.default_config().model.neuron),
        *("data.dir", "data.crop_fraction"),
        *("mixing.off_epoch", "distillation.teacher", "optimizer.clip_norm"),
    ),
}
CHOICES = (
    *("on_nonfinite", "sharding", "trainable", "model.dtype", "model.remat", "data.on_damaged"),
    *("data.randaugment.operations", "optimizer.name", "optimizer.schedule", "extend"),
    "time_step_groups",
    *("data.events.split_by", "data.events.split_order", "data.events.operations"),
    "data.erasing_fill",
)
WHOLE = (
    *("seed", "batch_size", "accumulate", "mesh.data", "mesh.model", "min_time_steps"),
    *("model.time_steps", "model.embed_dim", "model.num_heads", "model.depth"),
    *("data.image_size", "data.crop_padding", "data.randaugment.num_ops", "data.repeats"),
    *("data.workers", "log_every_steps", "keep_checkpoints", "model.neuron.levels"),
    *("data.events.height", "data.events.width", "data.events.roll"),
)
FLAGS = (
    *("model.neuron.detach_reset", "data.random_resized_crop", "data.flip", "step_losses.on"),
    *("data.events.sort", "data.events.sum_channel", "optimizer.trust_clip"),
)
AT_LEAST_ONE = (
    *("batch_size", "accumulate", "mesh.data", "model.time_steps", "model.embed_dim"),
    *("model.num_heads", "model.depth", "data.image_size", "data.repeats", "log_every_steps"),
    *("keep_checkpoints", "data.events.height", "data.events.width", "model.neuron.levels"),
)
ABOVE_ZERO = (
    *("epochs", "target_time_steps", "model.mlp_ratio", "model.neuron.alpha"),
    *("data.crop_fraction", "distillation.temperature", "optimizer.learning_rate"),
    *("optimizer.clip_norm", "eval_every_epochs"),
)
AT_MOST_ONE = (
    *("average_decay", "model.drop_path", "data.crop_fraction", "data.erasing_probability"),
    *("data.randaugment.probability", "mixing.cutmix_share", "mixing.probability"),
    *("distillation.weight", "optimizer.label_smoothing", "step_losses.weight"),
)
BAD = [
    *((key, x) for x, fitting in ODD.items() for key in validation.RULES if key not in fitting),
    *((key, x) for key in CHOICES for x in ("other", True, 1)),
    *((key, x) for key in WHOLE for x in (True, 1.5, "1", 10**30)),
    *((f"model.{key}", 2**31) for key in ("depth", "time_steps", "embed_dim", "mlp_ratio")),
    ("data.workers", 10**6),
    *((key, x) for key in FLAGS for x in (0, 1, "True")),
    *((key, 0) for key in (*AT_LEAST_ONE, *ABOVE_ZERO)),
    *((key, x) for key in AT_MOST_ONE for x in (1.1, 2)),
    *((key, 1.0) for key in ("average_decay", "model.drop_path")),
    ("seed", 2**32),
    ("mesh.model", -2),
    ("model.pool", (1, 0, 0, 0)),
    ("model.embed_dim", (32, 0)),
    ("model.neuron.tau", 0.5),
    *((f"data.{key}", x) for key in ("mean", "std") for x in (0.5, "0.5", (0.5, "x"), (123.7,))),
    *(("data.std", x) for x in ((0.0,), (0.5, 0.0, 0.5), (1e-45,))),
    *(("data.crop_scale", x) for x in ((0.5,), (0.5, 0.2), (0.0, 1.0), (0.5, 1.5), 0.5)),
    *(("data.crop_ratio", x) for x in ((1.0,), (2.0, 0.5), (0.0, 1.0), (1.0, INF), (1, 2, 3))),
    ("data.randaugment.magnitude", 11.0),
    *(("mixing.mixup_alpha", x) for x in (1e-9, 1e9)),
    *(
        ("optimizer.multipliers", x)
        for x in (
            *("head", ("head", 2.0), (("head",),), (("head", 2.0, 1.0),), (("(", 1.0),)),
            *((("head", "2"),), (("head", NAN),), (("head", -1.0),), (("", 1.0),), (("*", 1.0),)),
        )
    ),
]


@pytest.mark.parametrize("key", validation.RULES)
def test_no_key_takes_a_value_that_it_cannot_use(key):
    values = [value for name, value in BAD if name == key]
    assert len(values) > 10
    for value in values:
        config = changed(key, value)
        with pytest.raises(ValueError) as error:
            config_lib.validate(config)
        held = validation.flatten(config)[key]  # of a whole number, the float
        assert str(error.value).startswith(f"{key}={held!r} must be ")


@pytest.mark.parametrize("key", validation.RULES)
def test_no_key_that_has_a_value_takes_a_section_in_its_place(key):
    config = config_lib.default_config()
    *parts, last = key.split(".")
    section = functools.reduce(lambda found, part: found[part], parts, config)
    with section.unlocked():
        del section[last]
        section[last] = {"a": 1}
    with pytest.raises(ValueError) as error:
        config_lib.validate(config)
    assert str(error.value) == f"{key}={{'a': 1}} must be a value, and hold no keys"


@pytest.mark.parametrize("key", ["train_split", "eval_split"])
def test_a_split_that_is_not_there_is_named_with_its_key(key):
    config = load("digits")
    config.data[key] = "val[:3]"
    with pytest.raises(ValueError, match=rf"^data.{key}='val\[:3\]': unknown split="):
        experiment.build(config)


def test_every_key_has_a_rule_and_every_rule_a_key():
    assert set(validation.RULES) == set(validation.flatten(config_lib.default_config()))


@pytest.mark.parametrize("value", [None, 3, "lif", (), NAN])
def test_a_section_must_hold_its_keys(value):
    with pytest.raises(ValueError, match=r"model.neuron=.* must hold the keys alpha, detach_reset"):
        config_lib.validate(changed("model.neuron", value))


@pytest.mark.parametrize("key", ["kind", "reset", "surrogate", "estimator"])
def test_names_that_a_model_does_not_know_are_named(key):
    config = load("digits")
    config.model.neuron[key] = "other"
    with pytest.raises(ValueError, match=f"{key}='other'"):
        experiment.build(config)


def test_mixing_may_end_after_the_training():
    config = load("digits")
    config.mixing.off_epoch = 1e30
    assert experiment.build(config).procedure.mixing.off_step in (None, 2**31 - 1)


def test_an_archive_whose_splits_differ_in_colour_is_refused_before_training(tmp_path):
    images = np.zeros((64, 8, 8, 3), np.uint8)
    path = tmp_path / "images.npz"
    labels = np.arange(64) % 10
    np.savez(path, x_train=images[..., 0], y_train=labels, x_test=images, y_test=labels)
    config = load("digits")
    config.data.name, config.data.dir = "archive", str(path)
    message = "split 'train' has grey images and split 'test' RGB ones"
    with pytest.raises(ValueError, match=message):
        experiment.build(config)


def test_unknown_and_missing_keys_are_named():
    config = config_dict.ConfigDict(config_lib.default_config().to_dict())
    config.model.depht = 3
    with pytest.raises(ValueError, match=r"'model.'.*unknown=\['depht'\]"):
        config_lib.validate(config)
    del config.model.depht, config.seed
    with pytest.raises(ValueError, match=r"missing=\['seed'\]"):
        config_lib.validate(config)
    with pytest.raises(ValueError, match="unknown config key 'model.depht'"):
        config_lib.from_json('{"model": {"depht": 3}}')


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.name", "spikformer_9", "unknown model name='spikformer_9'"),
        ("model.num_heads", 7, "embed_dim=80 must be divisible by num_heads=7"),
        ("data.image_size", 9, r"image_size=\(9, 9\) must be .* divisible by the patch stride 4"),
        ("batch_size", 2000, "batch_size=2000 is larger than the 1437 examples"),
        ("data.eval_split", "nonsense", "unknown split='nonsense'"),
        ("data.mean", (0.1, 0.2), r"data.mean=\(0.1, 0.2\) needs 1 value: channels=1"),
        (
            "optimizer.warmup_epochs",
            900.0,
            "^optimizer.warmup_epochs=900.0 must be fewer than epochs=",
        ),
        ("data.crop_padding", -1, "data.crop_padding=-1"),
        ("data.crop_padding", 8, "data.crop_padding=8 must be below data.image_size=8"),
        ("epochs", 10**9, "epochs=1000000000.0 are 2.25e\\+10 steps; at most 2147483647"),
        ("data.std", (0.0,), r"data.std=\(0.0,\)"),
        ("data.mean", (float("nan"),), r"data.mean=\(nan,\)"),
        ("mixing.mixup_alpha", -1.0, "mixing.mixup_alpha=-1.0"),
        ("data.mean", None, "data.mean=None must be a tuple"),
        ("optimizer.multipliers", (("a", "b"),), r"optimizer.multipliers=\(\('a', 'b'\),\)"),
        ("optimizer.multipliers", (("haed", 2.0),), "'haed' is found in none of the 84 names"),
        ("data.train_split", "train[15:5]", r"unknown split='train\[15:5\]'"),
        ("mixing.probability", 1.5, "mixing.probability=1.5"),
        ("optimizer.multipliers", (("(", 1.0),), "optimizer.multipliers="),
        ("model.drop_path", 1.0, "drop_path=1.0"),
        (
            "mesh.data",
            64,
            "mesh={'data': 64, 'model': 1} does not fit 1 devices: data x model must be 1",
        ),
    ],
)
def test_what_needs_data_or_devices_is_checked_before_any_work(key, value, message):
    config = load("digits")
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        experiment.build(config)
