"""What the site and the package are made of; `make docs` itself checks links and docstrings."""

import configparser
import pathlib
import re
import tomllib

import pytest
import yaml

import snnvit_jax as snn

ROOT = pathlib.Path(__file__).parents[1]
INDEX = (ROOT / "docs" / "index.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()


def settings():
    parsed = configparser.ConfigParser()
    parsed.read(ROOT / "setup.cfg")
    return parsed


def test_the_reference_describes_everything_public():
    described = {name.rpartition(".")[2] for name in re.findall(r":: ([\w.]+)", API)}
    assert set(snn.__all__) - {"__version__"} <= described


def test_every_page_has_a_place_in_the_site():
    trees = re.findall(r"```{toctree}\n(.*?)```", INDEX, re.DOTALL)
    lines = {line.strip() for tree in trees for line in tree.splitlines() if line[:1] != ":"}
    placed = {re.sub(r".*<(.*)>", r"\1", line) for line in lines}
    for page in sorted(ROOT.glob("docs/*.md")):
        assert page.stem in placed | {"index"}, page
    for pattern in placed - {""}:
        assert list((ROOT / "docs").glob(f"{pattern}.md")), pattern


@pytest.mark.parametrize("path", [".github/workflows/ci.yml", "CITATION.cff"])
def test_files_for_others_can_be_read(path):
    assert yaml.safe_load((ROOT / path).read_text())


def test_versions_agree():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert cited == snn.__version__
    assert f"## {snn.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version = {{{snn.__version__}}}" in (ROOT / "docs" / "cite.md").read_text()


def test_the_pythons_that_are_stated_are_those_that_are_tested():
    stated = re.findall(r"Python :: (3\.\d+)$", settings()["metadata"]["classifiers"], re.MULTILINE)
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == stated
    least = settings()["options"]["python_requires"].removeprefix(">=")
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    assert least == stated[0] and ruff["target-version"] == f"py{stated[0].replace('.', '')}"


def test_linters_before_a_commit_are_those_of_the_tests():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    pinned = next(hook["rev"] for hook in hooks if "ruff" in hook["repo"])
    assert f"ruff=={pinned.removeprefix('v')}" in (ROOT / "constraints.txt").read_text().split()
