"""The package without its extras."""

import configparser
import importlib
import pathlib
import subprocess
import sys

import pytest
import two_processes

from snnvit_jax import extras, main

ROOT = pathlib.Path(__file__).parents[1]


def settings():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_jax_flax_and_numpy_are_enough_for_a_library():
    script = pathlib.Path(__file__).with_name("light.py")
    done = subprocess.run(
        [sys.executable, script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=two_processes.environment(devices=1) | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["carry", "main"]
    for line in done.stdout.splitlines():
        assert line.split()[1] == "error:"
        assert line.endswith(" is not installed; it comes with pip install 'snnvit_jax[train]'")


def test_only_what_others_make_is_called_missing():
    message = r"'nowhere' is not .*snnvit_jax\[train\]"
    missing = pytest.raises(extras.MissingExtraError, match=message)
    with missing, extras.needed(), extras.needed():
        importlib.import_module("nowhere.at_all")
    with pytest.raises(ModuleNotFoundError) as caught, extras.needed():
        importlib.import_module("snnvit_jax.nowhere")
    assert not isinstance(caught.value, extras.MissingExtraError)


def test_the_console_script_is_the_command_line():
    (line,) = settings()["options.entry_points"]["console_scripts"].split("\n")[1:]
    name, _, target = (part.strip() for part in line.partition("="))
    assert (name, target) == ("snnvit", "snnvit_jax.main:command")
    assert callable(main.command)


def test_the_core_needs_no_training_package():
    required = settings()["options"]["install_requires"].lower()
    for name in ("absl", "optax", "orbax", "grain", "ml_collections", "tensorboardx", "tqdm"):
        assert name not in required
    extras = settings()["options.extras_require"]
    assert "snnvit_jax[train" in extras["test"]
