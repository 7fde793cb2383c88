"""The names of classes belong to runs, weights and deployed files."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

import snnvit_jax as snn
from snnvit_jax.runs import classes, initial, start
from snnvit_jax.runs.workdir import Workdir

ANIMALS = ("ant", "cat", "dog")


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (
            ("ant", "dog", "kitten"),
            "3 classes then, of which 'cat' is missing now; 3 now, of which 'kitten' is new",
        ),
        (
            ("ant", "cat"),
            "3 classes then, of which 'dog' is missing now; 2 now, of which none is new",
        ),
        (
            tuple("abcdefgh"),
            "3 classes then, of which 'ant', 'cat', 'dog' are missing now; 8 now, of which "
            "'a', 'b', 'c', 'd', 'e', ... are new",
        ),
        (
            ("ant", "dog", "cat"),
            "the same in another order: class 1 is 'cat' then and 'dog' now",
        ),
        (("ant", "cat", "cat", "dog"), "3 classes then, 4 now, some names more than once"),
    ],
)
def test_other_classes_are_named(tmp_path, now, told):
    assert classes.difference(ANIMALS, now) == told
    workdir = Workdir(tmp_path)
    classes.check(workdir, now)  # a run from before names were kept
    classes.save(workdir, ANIMALS)
    classes.check(workdir, list(ANIMALS))
    with pytest.raises(
        ValueError, match="other classes than the run in .* was trained on"
    ) as error:
        classes.check(workdir, now)
    assert f"{told}; give it the data" in str(error.value)


def test_names_of_any_kind_come_back(tmp_path):
    names = ("café", "猫", "a$b$", "with\nline", "no text \udcff", "")
    classes.save(Workdir(tmp_path), names)
    assert classes.read(Workdir(tmp_path)) == names


@pytest.mark.parametrize("text", [b"", b"{", b'{"classes": []}', b"[1, 2]", b"3", b'["\xff"]'])
def test_what_is_no_list_of_classes_is_named(tmp_path, text):
    (tmp_path / "classes.json").write_bytes(text)
    with pytest.raises(ValueError, match=f"{tmp_path}/classes.json holds no list of classes"):
        classes.read(Workdir(tmp_path))


def test_a_deployed_file_knows_its_classes(tiny, tmp_path):
    snn.deploy(tiny.model, tiny.variables, classes=ANIMALS).save(tmp_path / "model.snn")
    assert snn.load_deployed(tmp_path / "model.snn").about["classes"] == list(ANIMALS)
    assert "classes" not in snn.deploy(tiny.model, tiny.variables).about
    deployed = snn.deploy(tiny.model, tiny.variables, classes=np.arange(3))  # names are text
    assert deployed.about["classes"] == ["0", "1", "2"]
    with pytest.raises(ValueError, match="2 classes for a model of 3"):
        snn.deploy(tiny.model, tiny.variables, classes=ANIMALS[:2])


@pytest.fixture
def own(tiny):
    """Initial variables that no test takes for loaded ones."""
    return jax.tree.map(lambda leaf: np.full(leaf.shape, 9.0, np.float32), tiny.variables)


def is_kept(found, tiny, own):
    """Whether the head is that of the weights; everything else must be in any case."""
    heads = [v["params"]["head"]["kernel"] for v in (found, tiny.variables, own)]
    rest = [
        {**v, "params": {n: x for n, x in v["params"].items() if n != "head"}}
        for v in (found, tiny.variables)
    ]
    jax.tree.map(np.testing.assert_array_equal, *rest)
    assert np.array_equal(heads[0], heads[1]) != np.array_equal(heads[0], heads[2])
    return np.array_equal(heads[0], heads[1])


@pytest.mark.parametrize(
    ("known", "names", "kept", "told"),
    [
        (ANIMALS, ANIMALS, True, r"starting from \S+$"),
        (None, ANIMALS, True, "the head is kept: which classes it is for is not known"),
        (
            ANIMALS,
            ("ant", "cat", "emu"),
            False,
            "head starts anew: .* 'dog' is missing here; .* 'emu' is",
        ),
        (
            ANIMALS,
            ("cat", "ant", "dog"),
            False,
            "head starts anew: .*another order: class 0 is 'ant' there",
        ),
    ],
)
def test_a_head_is_kept_for_the_same_classes_only(tiny, own, tmp_path, known, names, kept, told):
    path = tmp_path / "weights.safetensors"
    initial.save(path, jax.device_get(tiny.variables), known)
    found, origin = start.load(path, tiny.model, own, names)
    assert is_kept(found, tiny, own) == kept
    assert origin["init_from"] == str(path)
    assert len(origin["sha256"]) == 64
    assert origin.get("classes") == (None if known is None else list(known))
    assert re.search(told, start.describe(origin))
    json.dumps(origin)


def test_a_head_for_more_classes_starts_anew(tiny, tmp_path):
    path = tmp_path / "weights.safetensors"
    initial.save(path, jax.device_get(tiny.variables))
    model = type(tiny.model)(dataclasses.replace(tiny.model.config, num_classes=5))
    head = {"kernel": np.full((32, 5), 9, np.float32), "bias": np.zeros(5, np.float32)}
    own = tiny.variables | {"params": tiny.variables["params"] | {"head": head}}
    found, origin = start.load(path, model, own, tuple("abcde"))
    np.testing.assert_array_equal(found["params"]["head"]["kernel"], head["kernel"])
    assert "the head starts anew: there is none for 5 classes" in start.describe(origin)


def test_classes_of_a_file_that_are_no_names_are_refused(tiny, own, tmp_path):
    flat = traverse_util.flatten_dict(jax.device_get(tiny.variables), sep="/")
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(flat, path, {"classes": "[1"})
    with pytest.raises(ValueError, match=f"{path} holds no list of classes"):
        start.load(path, tiny.model, own, ANIMALS)
