"""What the site and the package are made of; `make docs` itself checks links and docstrings."""

import configparser
import importlib
import pathlib
import pkgutil
import re
import tomllib

import by_path
import pytest
import yaml

import snnvit_jax as snn

ROOT = pathlib.Path(__file__).parents[1]
INDEX = (ROOT / "docs" / "index.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()


@pytest.fixture(scope="module")
def pages():
    return by_path.module(ROOT / "docs/pages.py")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (":returns: *{layer name* -- spikes}.", ":returns: {layer name: spikes}."),
        (":returns: *A module* -- images -> x.", ":returns: A module: images -> x."),
        (":Yields: *a* -- b.", ":Yields: a: b."),
        ("of (values, *operands), 2*3", r"of (values, \*operands), 2*3"),
        (r":param \*weights: *this* array", r":param \*weights: \*this* array"),
        ("    :type: ``*args``", "    :type: ``*args``"),
    ],
)
def test_docstrings_are_read_as_prose(pages, line, shown):
    lines = [line]
    pages.as_prose(None, "function", "f", None, {}, lines)
    assert lines == [shown]


def test_defaults_are_not_shown_as_objects(pages):
    def short(signature):
        return pages.short_defaults(None, "function", "f", None, {}, signature, "->")

    given = "(a=<function X.<locals>.<lambda>>, b=<class 'jax.numpy.float32'>, c=<factory>, d=1)"
    assert short(given) == ("(a=..., b=float32, c=..., d=1)", "->")
    assert short("(a, *, b='<')") == ("(a, *, b='<')", "->")
    assert short(None) is None


def test_long_words_in_tables_may_be_broken(pages):
    code = '<code><span class="pre">{}</span></code>'
    long, short = "data/test_records::test_that_a_file_is_gone", "spikformer_8_384_imagenet"
    outside = f'<p title="{long}">{code.format(long)}</p>'
    assert pages.with_breaks(outside) == outside
    for shown in (code.format(short), f'<a href="{long}">4.25 of 5</a>'):
        assert pages.with_breaks(f"<td>{shown}</td>") == f"<td>{shown}</td>"
    body = pages.with_breaks(f'<td class="x"><p>{long}</p>{"0123456789abcdef" * 2}</td>')
    assert "<p>data/<wbr>test_<wbr>records::<wbr>test_<wbr>that" in body
    assert "cdef<wbr>0123456789abcdef</td>" in body


def test_only_the_first_page_is_called_start(pages):
    assert pages.is_start("docs/index", "../README.html")
    assert pages.is_start("experiments/deploy/README", "../../README.html")
    assert not pages.is_start("experiments/deploy/README", "../digits/README.html")
    context = {"prev": {"link": "../README.html", "title": "a"}, "next": None, "title": "b"}
    pages.finish(None, "docs/index", "page.html", context, None)
    assert (context["prev"]["title"], context["title"]) == ("Start", "b")


def test_links_back_from_the_code_lead_to_the_reference(pages):
    known = dict.fromkeys(["snnvit_jax.deploy", "snnvit_jax.deployment.Deployed.save"])
    body = '<a href="../api.html#snnvit_jax.Deployed.save"></a><a href="a.html#snnvit_jax.deploy">'
    expected = body.replace("jax.Deployed", "jax.deployment.Deployed")
    assert pages.with_known_anchors(body, known) == expected
    assert pages.with_known_anchors(expected, known) == expected


def test_dead_links_of_a_site_are_found(pages, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a b.png").touch()
    (tmp_path / "index.html").write_text(
        '<p id="here"><a href="#here"><a href="sub/x.html#there"><a href="https://a.b/c">'
        '<img src="a%20b.png?v=1"><img src="gone.png"><a href="sub/x.html#gone"><a href="#gone">'
    )
    (tmp_path / "sub/x.html").write_text('<p id="there"><a href="../index.html#here"><a href="x">')
    found = [("index.html", link) for link in ("gone.png", "sub/x.html#gone", "#gone")]
    assert pages.dead_links(tmp_path) == [*found, ("sub/x.html", "x")]


def settings():
    parsed = configparser.ConfigParser()
    parsed.read(ROOT / "setup.cfg")
    return parsed


def documented():
    """What the reference names, as objects: a bare name is one of the module named last."""
    module = None
    for kind, name in re.findall(r"^\.\. (\w+):: ([\w.]+)$", API, re.MULTILINE):
        if kind.endswith("module"):
            module = importlib.import_module(name)
            yield module
        else:
            yield pkgutil.resolve_name(name) if "." in name else getattr(module, name)


def test_the_reference_describes_everything_public():
    described = list(documented())
    for name in set(snn.__all__) - {"__version__"}:
        assert getattr(snn, name) in described, name


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
