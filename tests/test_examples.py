"""Every example of the README, of docs/ and of experiments/ does what a reader would have it do.

Python runs, on models that are made smaller; of commands, flags and keys are read by those who read
them otherwise.
"""

import configparser
import importlib.util
import pathlib
import re
import shlex
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

import snnvit_jax as snn
from snnvit_jax import main
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import validation

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
ALL_PAGES = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("experiments/*/README.md"))]
ELSEWHERE = {"own_model.md": "test_own_model_page.py"}
SMALL = {"embed_dim": 16, "num_heads": 2, "depth": 1}
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
# What stands for a reader's own in a command.
PLACEHOLDERS = {"--config=...": "--config=configs/digits.py", "--config.key=value": "", "...": ""}


def page_id(path):
    return path.relative_to(ROOT).as_posix()


# ---------------------------------------------------------------- Python


def small_model(name, num_classes=10, image_size=32, time_steps=2, **settings):
    """A model as an example asks for it, but for its size."""
    del image_size
    return CREATE_MODEL(name, num_classes, 16, time_steps=min(time_steps, 2), **settings | SMALL)


CREATE_MODEL = snn.create_model


@pytest.fixture
def names(tmp_path, monkeypatch, lively):
    """What an example may take for granted, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(snn, "create_model", small_model)
    (tmp_path / "ROOT/train/wave").mkdir(parents=True)
    model, place = small_model("spikformer_2_384"), np.zeros(3, np.int64)
    images = jnp.zeros((2, 16, 16, 3))
    variables, uniform, init = lively(model), jax.random.uniform, type(model).init
    # Images and first values as those of the model, whatever size is written on the page.
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: uniform(key, images.shape))

    def first_values(module, *arguments):
        is_small = module.config.embed_dim == SMALL["embed_dim"]  # not a trained one, loaded
        return variables if is_small else init(module, *arguments)

    monkeypatch.setattr(type(model), "init", first_values)
    known = {"snn": snn, "jax": jax, "jnp": jnp, "np": np}
    events = {"t": place, "x": place, "y": place, "p": place}
    return known | events | {"model": model, "variables": variables, "images": images}


def runs_here(block):
    """Whether all packages that an example imports are installed."""
    imported = re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE)
    return all(importlib.util.find_spec(name) for name in imported)


WITH_PYTHON = [p for p in PAGES if p.name not in ELSEWHERE and PYTHON.search(p.read_text())]


@pytest.mark.parametrize("path", WITH_PYTHON, ids=page_id)
def test_the_python_of_a_page_runs(path, names):
    blocks = PYTHON.findall(path.read_text())
    has_onnx = importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx")
    if any("model.onnx" in block for block in blocks) and has_onnx:
        snn.deploy(names["model"], names["variables"]).save("model.onnx")
        names["images"] = np.asarray(names["images"])
    for block in filter(runs_here, blocks):
        lines = [line for line in block.splitlines() if has_onnx or ".onnx" not in line]
        exec(compile("\n".join(lines), page_id(path), "exec"), names)


def test_pages_with_a_test_of_their_own_have_one():
    for page, test in ELSEWHERE.items():
        assert (ROOT / "docs" / page).exists()
        assert page in (ROOT / "tests" / test).read_text()


# ---------------------------------------------------------------- commands


def commands(path):
    """The commands of a page: indented lines that call python, snnvit or make."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = re.findall(r"^    (\S(?:.*\\\n)*.*)$", text, re.MULTILINE)
    for line in (" ".join(re.sub(r"\s+#.*", "", x).replace("\\\n", " ").split()) for x in lines):
        if re.match(r"((srun|mpirun|timeout \S+ \S+) )?(python|snnvit|make) ", line):
            yield line.replace("[", "").replace("]", "")


COMMANDS = sorted({(page_id(path), command) for path in ALL_PAGES for command in commands(path)})


def arguments(command, start):
    """The arguments of a command behind its program, without what stands for a reader's own."""
    words = shlex.split(command.partition(start)[2])
    words = [PLACEHOLDERS.get(word, word) for word in words]
    return [re.sub(r":(VARIANT|SIZE)$", "", word) for word in words if word]


def of_program(text):
    return [pytest.param(c, id=f"{page}: {c}"[:90]) for page, c in COMMANDS if text in c]


@pytest.mark.parametrize("command", of_program("snnvit_jax.main "))
def test_the_trainer_takes_the_flags_of_a_command(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    monkeypatch.setattr(sys, "argv", ["snnvit", *arguments(command, "snnvit_jax.main ")])
    with flagsaver.flagsaver():
        main.parse_flags(sys.argv)
        if flags.FLAGS["config"].present:
            config_lib.validate(flags.FLAGS["config"].value)
    flags.FLAGS.unparse_flags()


@pytest.mark.parametrize("command", of_program("python experiments/"))
def test_a_script_knows_the_flags_of_a_command(command):
    script, *words = shlex.split(command.partition("python ")[2])
    folder = (ROOT / script).parent
    assert (ROOT / script).exists()
    text = "\n".join(path.read_text() for path in folder.glob("*.py"))
    before = words[: words.index("--")] if "--" in words else words  # the rest is the trainer's
    for flag in (word.partition("=")[0] for word in before if word.startswith("--")):
        assert f'"{flag}"' in text or f'"{flag[2:].replace("-", "_")}"' in text, flag


@pytest.mark.parametrize("command", of_program("make "))
def test_make_knows_its_targets(command):
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in arguments(command, "make "))


def test_packing_knows_its_flags():
    text = (ROOT / "snnvit_jax/runs/carry.py").read_text()
    found = [c for _, c in COMMANDS if "snnvit_jax.carry " in c]
    assert len(found) >= 2
    for command in found:
        action, *words = arguments(command, "snnvit_jax.carry ")
        assert f'"{action}"' in text
        named = [word.partition("=")[0] for word in words if word.startswith("--")]
        assert all(f'"{name}"' in text for name in named), command


def test_there_is_no_other_kind_of_command():
    known = ("snnvit_jax.main ", "python experiments/", "make ", "snnvit_jax.carry ")
    assert [c for _, c in COMMANDS if not any(text in c for text in known)] == []


@pytest.mark.parametrize("path", ALL_PAGES, ids=page_id)
def test_keys_and_extras_that_a_page_names_exist(path):
    text, known = path.read_text(), validation.flatten(config_lib.default_config())
    named = set(re.findall(r"--config\.([a-z_][\w.]*\w)", text)) - {"key"}
    assert {
        key for key in named if not any(f"{name}.".startswith(f"{key}.") for name in known)
    } == set()
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = ",".join(re.findall(r"(?:snnvit_jax|\.)\[([\w,]+)\]'", text)).split(",")
    assert {*extras} - {""} <= {*setup["options.extras_require"]}


@pytest.mark.parametrize("path", ALL_PAGES, ids=page_id)
def test_files_that_a_page_names_exist(path):
    named = re.findall(r"`([\w/]+/[\w.]+\.(?:py|md|txt|toml|cfg))`", path.read_text())
    named += re.findall(r"\]\(([\w./-]+)(?:#[\w-]*)?\)", path.read_text())
    folders = (path.parent, ROOT, ROOT / "snnvit_jax")
    missing = [name for name in named if not any((f / name).exists() for f in folders)]
    own = ("ROOT/", "OUT/", "DIR/", "WORKDIR/")  # a reader's
    assert [name for name in missing if not name.startswith(own)] == []
