import dataclasses
import pathlib
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch_files
from flax import traverse_util
from golden_files import read

import snnvit_jax as snn
from snnvit_jax.neurons import PLIFNeuron
from snnvit_jax.runs import initial
from snnvit_jax.time_steps import masks
from snnvit_jax.weights import torch_file

TORCH_FILE = pathlib.Path(__file__).parent / "golden" / "torch_checkpoint.pth"


@pytest.fixture
def zeros(tiny):
    """Initial variables that no test takes for loaded ones."""
    return jax.tree.map(jnp.zeros_like, tiny.variables)


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_what_was_saved_is_loaded(tiny, zeros, tmp_path):
    path = tmp_path / "weights.safetensors"
    initial.save(path, jax.device_get(tiny.variables))
    assert_same(initial.load(path, tiny.model, zeros), tiny.variables)


@pytest.mark.filterwarnings("ignore:the weights have 4 time steps, this model 2")
def test_a_head_for_other_classes_starts_anew_and_scores_keep_their_first_steps(tiny, tmp_path):
    path = tmp_path / "weights.safetensors"
    names = snn.layer_names(tiny.model)
    learned = snn.TimeStepSchedule({n: (1, i % 2, 0, 1) for i, n in enumerate(names)})
    initial.save(path, jax.device_get(snn.with_schedule(tiny.variables, learned)))
    config = dataclasses.replace(tiny.model.config, num_classes=7, time_steps=2)
    model = type(tiny.model)(config)
    fresh = jax.tree.map(
        lambda leaf: jnp.full(leaf.shape, 9.0),
        jax.eval_shape(model.init, jax.random.key(0), tiny.images),
    )
    found = initial.load(path, model, fresh)
    assert_same(found["params"]["head"], fresh["params"]["head"])
    assert snn.TimeStepSchedule.from_variables(found) == learned.resized(2)
    assert_same(
        found["params"]["patch_embed"]["rpe_conv"],
        tiny.variables["params"]["patch_embed"]["rpe_conv"],
    )
    assert_same(found["batch_stats"], tiny.variables["batch_stats"])


@pytest.mark.parametrize("classes", [10, 3])
def test_the_authors_weights_are_loaded_with_or_without_their_head(tmp_path, classes):
    golden = read("spikformer_small")
    path = tmp_path / "published.safetensors"
    safetensors.numpy.save_file(
        {n: np.ascontiguousarray(w) for n, w in golden.weights.items()}, path
    )
    config = dataclasses.replace(golden.model().config, num_classes=classes)
    model = type(golden.model())(config)
    shapes = jax.eval_shape(model.init, jax.random.key(0), golden.images)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    found = initial.load(path, model, zeros)
    expected = snn.convert.from_torch(golden.model(), golden.weights)
    assert found["params"]["head"]["kernel"].any() == (classes == 10)
    for name in ("patch_embed", "block_0"):
        assert_same(found["params"][name], expected["params"][name])


def test_everything_that_does_not_fit_is_named(tiny, zeros, tmp_path):
    flat = traverse_util.flatten_dict(jax.device_get(tiny.variables), sep="/")
    path = tmp_path / "weights.safetensors"

    def load_changed(changes):
        kept = {n: a for n, a in (flat | changes).items() if a is not None}
        safetensors.numpy.save_file(kept, path)
        return initial.load(path, tiny.model, zeros)

    kernel = "params/patch_embed/rpe_conv/kernel"
    with pytest.raises(ValueError, match=f"another model: missing=.'{kernel}'"):
        load_changed({kernel: None})
    with pytest.raises(ValueError, match=r"unexpected=\['params/block_7/x'\]"):
        load_changed({"params/block_7/x": np.zeros(1, np.float32)})
    with pytest.raises(ValueError, match=rf"{kernel} is \(2,\), not \(3, 3, 32, 32\)"):
        load_changed({kernel: np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match=f"{kernel}' holds int8 numbers, no floating-point ones"):
        load_changed({kernel: np.zeros((3, 3, 32, 32), np.int8)})
    for name in (kernel + "/x/y", "params/patch_embed"):
        with pytest.raises(ValueError, match="'params/.*' is a tensor, and so is 'params/.*' with"):
            load_changed({name: np.zeros(1, np.float32)})
    with pytest.raises(FileNotFoundError, match="init_from='/nowhere' does not exist"):
        initial.load("/nowhere", tiny.model, zeros)
    with pytest.raises(ValueError, match="holds no run"):
        initial.load(tmp_path, tiny.model, zeros)
    for name, message in (("a.txt", "must be a run's folder"), ("a.safetensors", "not a safetens")):
        (tmp_path / name).write_text("text")
        with pytest.raises(ValueError, match=message):
            initial.load(tmp_path / name, tiny.model, zeros)
    # These two are refused before anything is compiled.
    for path, message in ((tmp_path, "holds no run"), (tmp_path / "a.txt", "must be a run's")):
        with pytest.raises(ValueError, match=message):
            initial.check_source(path)


def test_scores_for_more_steps_start_active_and_a_warning_says_so(tiny, tmp_path):
    path = tmp_path / "weights.safetensors"
    initial.save(path, jax.device_get(tiny.variables))
    model = type(tiny.model)(dataclasses.replace(tiny.model.config, time_steps=6))
    fresh = {**tiny.variables, **snn.with_time_steps(tiny.variables, 6)}
    with pytest.warns(UserWarning, match="have 4 time steps, this model 6: those added start act"):
        found = initial.load(path, model, fresh)
    assert snn.TimeStepSchedule.from_variables(found).average == 6


def test_scores_of_another_rank_are_named(tiny, zeros, tmp_path):
    flat = traverse_util.flatten_dict(jax.device_get(tiny.variables), sep="/")
    name = next(name for name in flat if name.endswith(masks.SCORE))
    path = tmp_path / "weights.safetensors"
    for wrong in (np.zeros((4, 1)), np.zeros(3)):  # the second one of a single layer
        safetensors.numpy.save_file(flat | {name: wrong.astype(np.float32)}, path)
        with pytest.raises(ValueError, match=f"{name} is .*, not .4,."):
            initial.load(path, tiny.model, zeros)


def test_scores_that_are_missing_start_active(tiny, tmp_path):
    flat = traverse_util.flatten_dict(jax.device_get(tiny.variables), sep="/")
    path = tmp_path / "weights.safetensors"
    weights = {name: leaf for name, leaf in flat.items() if not name.endswith(masks.SCORE)}
    safetensors.numpy.save_file(weights, path)
    assert_same(initial.load(path, tiny.model, tiny.variables), tiny.variables)


def test_a_model_that_learns_time_constants_may_start_from_one_that_does_not(tiny, tmp_path):
    path = tmp_path / "weights.safetensors"
    initial.save(path, jax.device_get(tiny.variables))
    neuron = PLIFNeuron()
    model = type(tiny.model)(dataclasses.replace(tiny.model.config, neuron=neuron))
    flat = traverse_util.flatten_dict(dict(tiny.variables), sep="/")
    constants = {f"params/{name}/tau_logit": np.float32(0.25) for name in snn.layer_names(model)}
    fresh = {name: np.zeros_like(leaf) for name, leaf in flat.items()} | constants
    with pytest.warns(
        UserWarning, match="hold none of the constants that neurons learn .'params/.* 11 others"
    ):
        found = initial.load(path, model, traverse_util.unflatten_dict(fresh, sep="/"))
    assert_same(found, traverse_util.unflatten_dict(flat | constants, sep="/"))
    initial.save(path, jax.device_get(found))
    some = next(iter(constants))
    safetensors.numpy.save_file(
        {n: np.asarray(leaf) for n, leaf in (flat | constants).items() if n != some}, path
    )
    with pytest.raises(ValueError, match=rf"missing=\['{some}'\]"):
        initial.load(path, model, traverse_util.unflatten_dict(fresh, sep="/"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["params/head/kernel", "batch_stats/patch_embed/rpe_bn/var"])
def test_weights_that_are_not_finite_are_named(tiny, zeros, tmp_path, name, value):
    flat = traverse_util.flatten_dict(jax.device_get(tiny.variables), sep="/")
    flat[name] = np.full_like(flat[name], value)
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(flat, path)
    with pytest.raises(ValueError, match=f"init_from='{path}' cannot be used: '{name}' holds"):
        initial.load(path, tiny.model, zeros)


@pytest.mark.parametrize("wrap", ["module._orig_mod.{}", "_forward_module.{}"])
def test_wrapped_names_are_those_of_the_model_in_every_kind_of_file(tmp_path, wrap):
    golden = read("spikformer_small")
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape),
        jax.eval_shape(golden.model().init, jax.random.key(0), golden.images),
    )
    wrapped = {wrap.format(n): np.ascontiguousarray(w) for n, w in golden.weights.items()}
    safetensors.numpy.save_file(wrapped, tmp_path / "x.safetensors")
    torch_files.write_arrays(tmp_path / "x.pth", wrapped)
    expected = snn.convert.from_torch(golden.model(), golden.weights)
    for name in ("x.safetensors", "x.pth"):
        assert_same(initial.load(tmp_path / name, golden.model(), zeros), expected)


def test_the_weights_under_a_key_can_be_asked_for(tmp_path):
    golden = read("spikformer_small")
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape),
        jax.eval_shape(golden.model().init, jax.random.key(0), golden.images),
    )
    content = {
        key: {n: torch_files.tensor(f"{key}{n}", w + i) for n, w in golden.weights.items()}
        for i, key in enumerate(("state_dict", "state_dict_ema"))
    }
    path = torch_files.write(tmp_path / "x.pth", content)
    bias = golden.weights["head.bias"]
    with pytest.warns(UserWarning, match=f"init_from={path}#state_dict_ema"):
        found = initial.load(path, golden.model(), zeros)
    np.testing.assert_array_equal(found["params"]["head"]["bias"], bias)
    found = initial.load(f"{path}#state_dict_ema", golden.model(), zeros)
    np.testing.assert_array_equal(found["params"]["head"]["bias"], bias + 1)
    with pytest.raises(ValueError, match="no weights under 'ema'; choose a key of ..state_dict"):
        initial.load(f"{path}#ema", golden.model(), zeros)
    path.rename(tmp_path / "x#2.pth")  # a file of that name comes first
    with pytest.warns(UserWarning, match="holds weights under"):
        initial.load(tmp_path / "x#2.pth", golden.model(), zeros)
    with pytest.raises(FileNotFoundError, match="x.pth#ema' does not exist"):
        initial.check_source(f"{path}#ema")


def test_only_pytorch_files_have_keys(tiny, zeros, tmp_path):
    initial.save(tmp_path / "x.safetensors", jax.device_get(tiny.variables))
    for path in (tmp_path / "x.safetensors", tmp_path):
        with pytest.raises(ValueError, match="#ema': only PyTorch checkpoints have keys"):
            initial.load(f"{path}#ema", tiny.model, zeros)


# torch_checkpoint.pth was written by torch.save in PyTorch 2.13: {"state_dict": {...}, "args":
# argparse.Namespace, ...}, as training scripts do, with names that start with "module.".


def test_a_pytorch_file_is_read_without_pytorch():
    found = torch_file.read_state_dict(TORCH_FILE)
    assert {name: (a.shape, str(a.dtype)) for name, a in found.items()} == {
        "whole": ((2, 3), "float32"),
        "transposed": ((3, 2), "float32"),
        "part": ((2, 2), "float32"),
        "half": ((2,), "float32"),
        "bfloat16": ((2,), "float32"),
        "count": ((), "int64"),
        "empty": ((0, 3), "float32"),
        "parameter": ((2,), "float32"),
    }
    whole = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(found["whole"], whole)
    np.testing.assert_array_equal(found["transposed"], whole.T)
    np.testing.assert_array_equal(found["part"], whole[:, 1:])
    np.testing.assert_array_equal(found["half"], [0.5, -1.5])
    np.testing.assert_array_equal(found["bfloat16"], [0.25, 3.0])
    np.testing.assert_array_equal(found["parameter"], [1.0, 2.0])
    assert found["count"] == 7


class Malicious:
    def __reduce__(self):
        return pathlib.Path("executed").write_text, ("by unpickling",)


def test_a_pytorch_file_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("evil.pth", "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps({"state_dict": {"a": Malicious()}}))
    with pytest.raises(ValueError, match=r"evil.pth' (holds no weights|is not a PyTorch)"):
        torch_file.read_state_dict("evil.pth")
    assert not pathlib.Path("executed").exists()


@pytest.mark.parametrize("damage", ["text", "truncated", "no tensor file"])
def test_a_damaged_pytorch_file_is_named(tmp_path, damage):
    path = tmp_path / "x.pth"
    content = TORCH_FILE.read_bytes()
    path.write_bytes({"text": b"text", "truncated": content[:-100]}.get(damage, content))
    if damage == "no tensor file":
        with zipfile.ZipFile(TORCH_FILE) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                if not name.endswith("/data/0"):
                    new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match="x.pth' is not a PyTorch checkpoint"):
        torch_file.read_state_dict(path)
