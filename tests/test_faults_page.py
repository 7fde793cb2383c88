"""What docs/faults.md and experiments/faults say is there, is there."""

import ast
import functools
import json
import pathlib
import re
import sys
from unittest import mock

import by_path

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "faults.md").read_text()
CAMPAIGN = ROOT / "experiments" / "faults"


@functools.cache
def functions_of(name):
    tree = ast.parse((ROOT / "tests" / f"{name}.py").read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_test_that_the_page_names_exists():
    named = re.findall(r"`([\w/]*test_\w+)::(test_\w+)`", PAGE)
    assert len(named) > 90
    assert [f"{file}::{test}" for file, test in named if test not in functions_of(file)] == []


def test_every_fault_is_on_the_page_with_a_test():
    rows = dict(re.findall(r"^\| (\d+[a-d]?) \| (.*)$", PAGE, re.MULTILINE))
    numbers = [re.match(r"\d+", row)[0] for row in rows]
    assert sorted({int(number) for number in numbers}) == list(range(1, 31))
    assert all("::test_" in row for row in rows.values())


def campaign(monkeypatch):
    """The module experiments/faults/run.py, without what it runs trials with."""
    for name in ("damage", "pair", "trial"):
        monkeypatch.setitem(sys.modules, name, mock.MagicMock())
    return by_path.module(CAMPAIGN / "run.py")


def test_the_table_of_the_campaign_is_what_was_recorded(monkeypatch):
    module = campaign(monkeypatch)
    recorded = json.loads((CAMPAIGN / "digits" / "faults.json").read_text())
    assert list(recorded) == list(module.FAULTS)
    readme = (CAMPAIGN / "README.md").read_text()
    shown, written = (
        [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
        for text in (readme, module.markdown(recorded))
    )
    assert shown == written
