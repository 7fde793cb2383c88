"""What a command line must not hold: one line that names it, and the exit status of bad input."""

import pathlib
import re
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from snnvit_jax import main

DIGITS = pathlib.Path(__file__).parents[1] / "configs" / "digits.py"

# File that --config names, or what stands in it -> what is said of it.
FILES = {
    "x = (": "'(' was never closed",
    "import nothing_of_this_name": "No module named 'nothing_of_this_name'",
    "def get_config():\n    raise ValueError('seven')": "ValueError: seven",
    "from snnvit_jax.config import default_config\n"
    "def get_config():\n"
    "    config = default_config()\n"
    "    config.epochs = 10**400\n"
    "    return config": "int too large to convert to float",
    "y = 1": "has no attribute 'get_config'",
}


@pytest.fixture
def refused(monkeypatch, capsys):
    """Returns a function: arguments -> the line with which they are refused."""

    def parse(*arguments):
        monkeypatch.delitem(sys.modules, "config_config", raising=False)  # the file before this one
        monkeypatch.setattr(sys, "argv", ["snnvit", *arguments])  # where overrides are looked up
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
            main.parse_flags(sys.argv)
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1, said
        return said

    yield parse
    flags.FLAGS.unparse_flags()


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.epochs=abc", "--config.epochs=abc: could not convert string to float: 'abc'"),
        ("--config.batch_size=1.5", "--config.batch_size=1.5"),
        ("--config.mesh.data=nan", "--config.mesh.data=nan"),
        ("--config.epochs=", "--config.epochs="),
        ("--config.model=5", "--config.model=5"),
        ("--config.model.neuron=lif", "--config.model.neuron=lif"),
        ("--config.data.mean", "Missing value for flag --config.data.mean"),
        ("--config.nonsense=1", "no key 'nonsense'"),
        ("--config.model.depht=3", "no key 'depht' Did you mean \"depth\""),
        ("--config.epochs.a=3", "epochs.a"),
        ("--mode=walk", "--mode=walk: value should be one of <train|"),
        ("--restart=-1", "--restart=-1"),
        ("--wrokdir=x", "Unknown command line flag 'wrokdir'"),
    ],
)
def test_arguments_that_do_not_fit_are_named_in_one_line(refused, argument, words):
    assert words in refused(f"--config={DIGITS}", argument)


@pytest.mark.parametrize("text", FILES)
def test_a_configuration_file_that_does_not_work_is_named_in_one_line(refused, text, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert FILES[text] in refused(f"--config={path}")


def test_a_configuration_file_that_is_not_there_is_named(refused, tmp_path):
    assert "/none.py': there is no such file" in refused(f"--config={tmp_path}/none.py")
    assert "there is no such file" in refused(f"--config={tmp_path}")


# ---------------------------------------------------------------- flags of other modes

OTHER = {"distributed": True, "format": "json", "checkpoint": "best"}
MODE_FLAGS = [(flag, mode) for flag in main.GOES_WITH for mode in main.MODES]


@pytest.fixture
def given():
    """Sets flags as if they had been parsed; they are put back behind the test."""
    with flagsaver.flagsaver():
        flags.FLAGS.mark_as_parsed()
        yield lambda **values: [setattr(flags.FLAGS, name, x) for name, x in values.items()]
    flags.FLAGS.unparse_flags()


def test_the_table_of_flags_holds_every_one():
    own = {flag.name for flag in flags.FLAGS.get_key_flags_for_module("snnvit_jax.main")}
    assert own == {"mode", *main.GOES_WITH}
    assert all({*modes} <= {*main.MODES} for modes in main.GOES_WITH.values())


@pytest.mark.parametrize(("flag", "mode"), MODE_FLAGS)
def test_a_flag_is_for_its_modes_alone(flag, mode, given, capsys):
    value = OTHER.get(flag, 7 if isinstance(flags.FLAGS[flag].default, int) else "x")
    given(**{"mode": mode, flag: value})
    if mode in main.GOES_WITH[flag]:
        main.check_flags(mode)
        return
    assert main.main(["snnvit"]) == 2
    said = capsys.readouterr().err
    named = re.fullmatch(rf"error: --{flag} goes with --mode=(.*), not with --mode={mode}\n", said)
    assert re.split(", | or ", named[1]) == [*main.GOES_WITH[flag]]


@pytest.mark.parametrize("mode", main.MODES)
def test_flags_at_their_defaults_go_with_every_mode(mode):
    main.check_flags(mode)


@pytest.mark.parametrize(("mode", "forms"), main.FORMATS.items())
def test_a_format_of_another_mode_is_named(mode, forms, given, capsys):
    given(mode=mode, workdir="none", format="page")
    assert main.main(["snnvit"]) == 2
    assert f"--format='page' must be one of {', '.join(forms)}" in capsys.readouterr().err
