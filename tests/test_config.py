import importlib
import pathlib

import hypothesis
import pytest
from hypothesis import strategies as st
from ml_collections import config_dict

from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import experiment

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def load(name, *args):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*args)


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
        ("optimizer.name", "sgd", "optimizer.name='sgd'"),
        ("optimizer.clip_norm", 0.0, "optimizer.clip_norm=0.0"),
        ("optimizer.schedule", "step", "optimizer.schedule='step'"),
        ("optimizer.score_multiplier", -1.0, "optimizer.score_multiplier=-1.0"),
        ("optimizer.learning_rate", 1e-6, "optimizer.min_learning_rate=1e-05 must not be above"),
        ("data.repeats", 0, "data.repeats=0"),
        ("data.on_damaged", "ignore", "data.on_damaged='ignore'"),
        ("model.dtype", "float16", "model.dtype='float16'"),
        ("model.remat", "all", "model.remat='all' must be one of none, block"),
        ("sharding", "zero", "sharding='zero' must be one of replicate, fsdp, tensor"),
        ("optimizer.label_smoothing", 1.5, "optimizer.label_smoothing=1.5"),
        ("optimizer.learning_rate", 0.0, "optimizer.learning_rate=0.0"),
        ("log_every_steps", 0, "log_every_steps=0"),
    ],
)
def test_values_that_do_not_fit_are_named(key, value, message):
    with pytest.raises(ValueError, match=message):
        config_lib.validate(changed(key, value))


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
        ("data.image_size", 9, r"image_size=\(9, 9\) must be divisible by the patch stride 4"),
        ("batch_size", 2000, "batch_size=2000 is larger than the 1437 examples"),
        ("data.eval_split", "nonsense", "unknown split='nonsense'"),
        ("data.mean", (0.1, 0.2), r"data.mean=\(0.1, 0.2\) needs 1 or 1 values"),
        ("optimizer.warmup_epochs", 900.0, "warmup_epochs=900.0 must be fewer than epochs="),
        ("data.crop_padding", -1, "data.crop_padding=-1"),
        ("data.std", (0.0,), r"data.std=\(0.0,\)"),
        ("data.mean", (float("nan"),), r"data.mean=\(nan,\)"),
        ("mixing.mixup_alpha", -1.0, "mixing.mixup_alpha=-1.0"),
        ("mixing.probability", 1.5, "mixing.probability=1.5"),
        ("optimizer.multipliers", (("(", 1.0),), "optimizer.multipliers="),
        ("model.drop_path", 1.0, "drop_path=1.0"),
        ("mesh.data", 64, "mesh={'data': 64, 'model': 1} does not fit"),
    ],
)
def test_what_needs_data_or_devices_is_checked_before_any_work(key, value, message):
    config = load("digits")
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        experiment.build(config)
