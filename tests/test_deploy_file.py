"""The file of a deployed model, and what its program costs."""

import copy
import dataclasses
import itertools
import json
import pickle
import re
import types
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

import snnvit_jax as snn
from snnvit_jax.common import tensors
from snnvit_jax.deployment import container, program
from snnvit_jax.distributed.mesh import create_mesh
from snnvit_jax.models import registry
from snnvit_jax.models.flops import model_flops
from snnvit_jax.neurons import KINDS
from snnvit_jax.runs import commands, loop
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs.workdir import Workdir
from snnvit_jax.xla.flops import compiled_flops

BATCH = 3


@pytest.fixture(scope="module")
def names(tiny):
    return snn.layer_names(tiny.model)


@pytest.fixture(scope="module")
def deployed(tiny, names):
    masks = {name: [0, 1, 0, 1] if "attn" in name else [1, 1, 0, 0] for name in names}
    return snn.deploy(tiny.model, tiny.variables, snn.TimeStepSchedule(masks))


@pytest.fixture(scope="module")
def saved(deployed, tmp_path_factory):
    path = tmp_path_factory.mktemp("deployed") / "model.snn"
    deployed.save(path)
    return path


@pytest.fixture(scope="module")
def loaded(saved):
    return snn.load_deployed(str(saved))


def test_a_pickled_model_is_the_saved_one(loaded, saved, tiny, tmp_path):
    unpickled = pickle.loads(pickle.dumps(loaded))
    np.testing.assert_array_equal(unpickled(tiny.images), loaded(tiny.images))
    unpickled.save(tmp_path / "again.snn")
    assert (tmp_path / "again.snn").read_bytes() == saved.read_bytes()


def test_a_copy_is_the_same_model_with_all_that_it_can_do(deployed):
    assert copy.copy(deployed) is deployed
    assert copy.deepcopy({"model": deployed})["model"] is deployed


def test_a_loaded_model_is_the_saved_one(loaded, deployed, tiny):
    np.testing.assert_array_equal(loaded(tiny.images), deployed(tiny.images))
    assert loaded.schedule == deployed.schedule
    assert list(loaded.schedule.masks) == list(deployed.schedule.masks)
    assert loaded.steps == deployed.steps
    assert loaded.about == deployed.about
    assert loaded.about["image_shape"] == [16, 16, 3]
    assert loaded.about["config"]["neuron"]["kind"] == "lif"


def test_settings_that_are_numbers_of_numpy_are_written_as_plain_ones(tiny, deployed):
    config = tiny.model.config
    given = dataclasses.replace(
        config,
        num_classes=np.int64(3),
        image_size=(np.int32(16), 16),
        mlp_ratio=np.float32(4),
        pool=tuple(map(np.bool_, config.pool)),
        neuron=dataclasses.replace(config.neuron, tau=np.float32(2)),
    )
    about = snn.deploy(tiny.model.clone(config=given), tiny.variables).about
    assert json.dumps(about["config"]) == json.dumps(deployed.about["config"])


def test_a_loaded_model_takes_any_batch_size(loaded, tiny):
    np.testing.assert_allclose(
        loaded(tiny.images[:1])[0], loaded(tiny.images)[0], rtol=1e-5, atol=1e-6
    )


def test_a_loaded_model_can_be_counted_and_saved_again(loaded, deployed, saved, tmp_path):
    assert loaded.flops(BATCH) == deployed.flops(BATCH)
    loaded.save(tmp_path / "again.snn")
    assert (tmp_path / "again.snn").read_bytes() == saved.read_bytes()


def test_loading_and_calling_need_no_model_code(saved, tiny, deployed, monkeypatch):
    def absent(*args, **kwargs):
        raise AssertionError("model code was called")

    monkeypatch.setattr(program.Program, "__call__", absent)
    monkeypatch.setattr(type(tiny.model), "__call__", absent)
    monkeypatch.setattr(registry, "FAMILIES", {})
    np.testing.assert_array_equal(snn.load_deployed(saved)(tiny.images), deployed(tiny.images))


def test_one_file_serves_three_platforms(loaded):
    exported = jax.export.deserialize(bytearray(loaded._program))
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}


def test_the_program_does_not_say_where_it_was_made(saved):
    with zipfile.ZipFile(saved) as file:
        program = file.read("program.jax")
    assert b"deployed.py" in program or b"program.py" in program  # names without folders
    assert str(Path(snn.__file__).parent).encode() not in program


def test_the_file_can_be_read_without_this_library(saved, deployed):
    with zipfile.ZipFile(saved) as file:
        about, masks = (json.loads(file.read(f"{n}.json")) for n in ("about", "schedule"))
        weights = safetensors.numpy.load(file.read("weights.safetensors"))
    assert about["model"] == "Spikformer"
    assert masks["masks"]["block_0/mlp/fc1_lif"] == [1, 1, 0, 0]
    assert weights.keys() == deployed.weights.keys()


def test_weights_are_written_as_safetensors(deployed, tiny, tmp_path):
    deployed.save_weights(tmp_path / "weights.safetensors")
    weights = safetensors.numpy.load_file(tmp_path / "weights.safetensors")
    assert weights["block_0/mlp/fc1_linear/kernel"].shape == (32, 128)
    params = tiny.variables["params"]["block_0"]["mlp"]
    factor = params["fc1_bn"]["scale"] / np.sqrt(1 + 1e-5)
    expected = params["fc1_linear"]["kernel"] * factor
    np.testing.assert_allclose(weights["block_0/mlp/fc1_linear/kernel"], expected, rtol=1e-6)
    for name, array in weights.items():
        np.testing.assert_array_equal(array, deployed.weights[name], err_msg=name)


def test_bfloat16_weights_survive_the_file(tiny):
    weights = snn.deploy(tiny.model, tiny.variables, dtype="bfloat16").weights
    again = tensors.unpack(tensors.pack(weights), "it")
    assert {str(array.dtype) for array in again.values()} == {"bfloat16", "float32"}
    for name, array in weights.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_weights_are_written_by_their_shape_not_by_their_memory():
    transposed = np.arange(6, dtype=np.float32).reshape(2, 3).T
    again = tensors.unpack(tensors.pack({"a": transposed}), "it")
    np.testing.assert_array_equal(again["a"], transposed)


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 0), (2, 3)])
def test_weights_keep_their_shape_numbers_and_empty_ones_too(shape):
    weights = {"a": np.zeros(shape, np.float32)}
    assert tensors.unpack(tensors.pack(weights), "it")["a"].shape == shape


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lif"])
def test_every_kind_of_neuron_survives_the_file(kind, lively, tmp_path):
    model = snn.create_model(
        "spikformer_2_384",
        3,
        image_size=8,
        time_steps=2,
        embed_dim=16,
        num_heads=2,
        depth=1,
        neuron={"kind": kind},
    )
    deployed = snn.deploy(model, lively(model))
    deployed.save(tmp_path / "model.snn")
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    loaded = snn.load_deployed(tmp_path / "model.snn")
    np.testing.assert_array_equal(loaded(images), deployed(images))
    assert loaded.about["config"]["neuron"]["kind"] == kind


# ---------------------------------------------------------------- files that cannot be read


def test_a_flipped_byte_anywhere_is_noticed(saved, tmp_path):
    content, path = saved.read_bytes(), tmp_path / "flipped.snn"
    line = content.index(b"\n")
    places = [*range(0, line + 1, 7), *np.linspace(line, len(content) - 1, 25).astype(int)]
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"flipped\.snn"):
            snn.load_deployed(path)


@pytest.mark.parametrize("part", [0.0, 0.0001, 0.5, 0.999])
def test_a_file_cut_short_is_noticed(saved, part, tmp_path):
    content, path = saved.read_bytes(), tmp_path / "short.snn"
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ValueError, match=r"short\.snn.*damaged"):
        snn.load_deployed(path)


def test_another_format_is_named(saved, tmp_path):
    path = tmp_path / "new.snn"
    path.write_bytes(saved.read_bytes().replace(b"format 1", b"format 2", 1))
    with pytest.raises(ValueError, match=r"new\.snn' has format 2.*reads 1"):
        snn.load_deployed(path)


def test_a_file_of_another_kind_is_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(tensors.pack({"a": np.zeros(3, np.float32)}))
    with pytest.raises(ValueError, match=r"weights\.safetensors' is not a deployed model"):
        snn.load_deployed(path)


def test_a_program_that_jax_cannot_read_is_named(saved, tmp_path):
    parts, path = container.read(saved), tmp_path / "future.snn"
    container.write(path, parts | {"program.jax": b"\0" * 64})
    with pytest.raises(ValueError, match=r"future\.snn' was written with jax.*export"):
        snn.load_deployed(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.snn"):
        snn.load_deployed(tmp_path / "none.snn")


# ---------------------------------------------------------------- cost


@pytest.fixture(scope="module")
def flops(tiny, names):
    """FLOPs of the small model with all layers sharing the last k of 4 steps."""
    return {
        k: snn.deploy(
            tiny.model,
            tiny.variables,
            snn.TimeStepSchedule({name: [0] * (4 - k) + [1] * k for name in names}),
        ).flops(BATCH)
        for k in (1, 2, 4)
    }


def test_flops_are_those_of_the_shapes(flops):
    # Two for each multiply-accumulate; convolution windows reach into padding at the border.
    conv = 2 * (3 * 16 - 2) ** 2 * 4 * 3  # once
    conv += 4 * 2 * ((3 * 16 - 2) ** 2 * (4 * 8 + 8 * 16) + (3 * 8 - 2) ** 2 * 16 * 32)
    conv += 4 * 2 * (3 * 4 - 2) ** 2 * 32 * 32
    linear = 4 * 2 * 16 * (4 * 32 * 32 + 2 * 32 * 128)
    attention = 4 * 2 * 2 * 2 * 16 * 16 * 16  # 2 products, 2 heads of 16 tokens and 16 channels
    products = BATCH * (conv + linear + attention)
    assert products < flops[4] < 1.15 * products


def test_flops_fall_with_the_steps_that_all_layers_share(flops):
    assert flops[1] <= (1 / 4 + 0.05) * flops[4]
    assert flops[2] <= (2 / 4 + 0.05) * flops[4]
    assert flops[1] < flops[2] < flops[4]


def test_folding_saves_flops(flops, tiny):
    assert flops[4] < model_flops(tiny.model, tiny.variables, BATCH)


def test_flops_fall_with_nested_schedules(tiny, names, flops):
    # Steps that are computed nest like their schedules; what that saves, the compiler counts once.
    rng = np.random.default_rng(3)
    masks, computed = {name: np.ones(4, bool) for name in names}, []
    for density in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4):
        masks = {name: mask & (rng.random(4) < density) for name, mask in masks.items()}
        deployed = snn.deploy(tiny.model, tiny.variables, snn.TimeStepSchedule(masks))
        computed.append({(n, t) for n, steps in deployed.steps.items() for t in steps})
        if density == 0.8:
            assert deployed.flops(BATCH) < flops[4]
    assert all(later <= earlier for earlier, later in itertools.pairwise(computed))
    assert len(computed[-1]) < len(computed[0])


def test_flops_of_a_product():
    a, b = np.zeros((4, 5), np.float32), np.zeros((5, 6), np.float32)
    assert compiled_flops(lambda a, b: a @ b, a, b) == 2 * 4 * 5 * 6


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "2", None, True])
def test_a_batch_needs_an_image(deployed, batch_size):
    with pytest.raises(ValueError, match=f"^batch_size={batch_size!r} must be a whole"):
        deployed.flops(batch_size)


# ---------------------------------------------------------------- the command line


def test_a_run_is_exported(tiny, names, tmp_path, capsys):
    masks = {name: [0, 1, 0, 0] for name in names}
    variables = snn.with_schedule(tiny.variables, snn.TimeStepSchedule(masks))
    run = object.__new__(loop.Run)  # as it stands after training
    run.experiment = types.SimpleNamespace(
        config=config_lib.default_config(),
        model=tiny.model,
        image_shape=(16, 16, 3),
        train_source=types.SimpleNamespace(class_names=("ant", "bee", "cat")),
        mesh=create_mesh({"data": 1, "model": 1}, jax.devices()[:1]),
    )
    run.state = types.SimpleNamespace(eval_variables=variables)
    run.workdir = run.results = Workdir(tmp_path)
    run.measured = None
    assert commands.export(run) == 0
    output = capsys.readouterr().out
    ratio = float(re.search(r"average time steps 1.00 of 4, .* ([0-9.]+) of the masked", output)[1])
    assert 0.2 < ratio < 0.35
    assert str(tmp_path / "deployed.snn") in output
    loaded = snn.load_deployed(tmp_path / "deployed.snn")
    assert loaded.schedule.masks["block_0/mlp/fc1_lif"].tolist() == [False, True, False, False]
    assert loaded.about["classes"] == ["ant", "bee", "cat"]
    weights = safetensors.numpy.load_file(tmp_path / "deployed.safetensors")
    assert weights.keys() == loaded.weights.keys()
