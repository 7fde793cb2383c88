"""Packages keep to what their docstrings say they import, and to the other rules of the house.

The lists of exceptions may only shrink: one that is not needed any more fails too.
"""

import ast
import functools
import graphlib
import itertools
import pathlib
import re

import pytest

import snnvit_jax as snn

ROOT = pathlib.Path(__file__).parents[1]
HOUSE = ROOT / "snnvit_jax"
PACKAGES = sorted(path.parent.name for path in HOUSE.glob("*/__init__.py"))
SHELF = sorted(path.stem for path in HOUSE.glob("*.py"))
# What everybody may import: it imports nothing of the house.
GROUND = {"extras", "version"}
FLOW = ("data", "models", "training", "runs")
FAMILIES = sorted(path.parent.name for path in HOUSE.glob("models/*/__init__.py"))

NAME_FAMILIES = ("models", "weights")
FAMILY_EXCEPTIONS = set()
BACKEND_EXCEPTIONS = {"checkpoints/checkpoints.py"}


def files(*folders):
    """Every source file of these packages, of all without one, as paths below snnvit_jax."""
    found = [p.relative_to(HOUSE) for p in sorted(HOUSE.rglob("*.py"))]
    return [p for p in found if not folders or p.parts[0] in folders]


@functools.cache
def tree(path):
    return ast.parse((HOUSE / path).read_text())


def imported(path):
    """Names of the modules that a file imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relative to itself"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(path):
    """Packages and modules of the house that a file imports, other than its own."""
    names = (name.split(".") for name in imported(path))
    known = {*PACKAGES, *SHELF}
    found = {parts[1] for parts in names if parts[0] == "snnvit_jax" and parts[1] in known}
    return found - {path.parts[0].removesuffix(".py")}


@functools.cache
def imports():
    """The packages that each package imports, wherever in its modules."""
    found = {package: set() for package in PACKAGES}
    for path in files(*PACKAGES):
        found[path.parts[0]] |= rooms(path) & {*PACKAGES}
    return found


def docstring(package):
    return ast.get_docstring(tree(pathlib.Path(package) / "__init__.py"))


def allowed(package):
    """What a package may import, from its docstring: "Imports `a` and `b.c`." """
    found = re.findall(r"\bImports ((?:`[^`]*`|[^.;`])*)[.;]", docstring(package))
    assert len(found) == 1, f"the docstring of {package} must say once what it imports"
    if found[0].startswith("everything"):
        return {*PACKAGES} - {package}
    assert found[0].startswith(("nothing", "`")), found[0]
    return set(re.findall(r"`([\w.]+)`", found[0]))


def only_needed(found, exceptions):
    """Asserts that nothing but the exceptions breaks a rule, and that every one of them does."""
    assert set(found) - exceptions == set(), "breaks a rule of the house"
    assert exceptions - set(found) == set(), "no exception any more: take it off the list"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_docstring_says_what_lives_there_and_what_it_may_import(package):
    first = docstring(package).splitlines()[0]
    assert first.endswith(".") and len(first) <= 100
    assert allowed(package) <= {*PACKAGES} - {package}


def test_packages_import_what_they_say():
    found = [
        (path.as_posix(), room)
        for path in files(*PACKAGES)
        for room in rooms(path) - allowed(path.parts[0]) - GROUND
    ]
    assert not found


# Packages within packages that say what they import.
INNER = [
    path.parent.relative_to(HOUSE).as_posix()
    for path in sorted(HOUSE.glob("*/*/**/__init__.py"))
    if "Imports " in (ast.get_docstring(ast.parse(path.read_text())) or "")
]


@pytest.mark.parametrize("package", INNER)
def test_inner_packages_import_what_they_say_and_all_of_it(package):
    own = f"snnvit_jax.{package.replace('/', '.')}."
    names = {
        name.removeprefix("snnvit_jax.")
        for path in files()
        if path.is_relative_to(package)
        for name in imported(path)
        if name.startswith("snnvit_jax.") and not name.startswith(own)
    }
    names = {name for name in names if name.partition(".")[0] not in GROUND}
    said = {name: {n for n in names if f"{n}.".startswith(f"{name}.")} for name in allowed(package)}
    assert names == set().union(*said.values())
    assert all(said.values()), said


def test_only_packages_say_what_others_define():
    """A name has one address in its package, and perhaps that of the package itself."""
    listing = [path for path in files() if path.name != "__init__.py" and len(path.parts) > 1]
    assert not [path for path in listing if "__all__" in (HOUSE / path).read_text()]


def test_the_ground_stands_on_nothing():
    assert all(not rooms(pathlib.Path(f"{name}.py")) for name in GROUND)


def test_data_flows_one_way():
    graph = imports()
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises for a circle
    assert order[-1] == "runs"
    for earlier, later in itertools.combinations(FLOW, 2):
        assert later not in reached(graph, earlier)


def reached(graph, start):
    found, new = set(), {start}
    while new:
        found |= new
        new = set().union(*(graph[name] for name in new)) - found
    return found


def test_training_knows_no_file():
    for path in files("training"):
        banned = {"pathlib", "os", "io", "shutil", "tempfile", "glob", "json", "pickle"}
        assert not banned & {name.split(".")[0] for name in imported(path)}, path
        calls = (node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call))
        assert not any(isinstance(call, ast.Name) and call.id == "open" for call in calls), path
    assert not {"checkpoints", "runs", "report"} & allowed("training")


def test_only_models_and_weights_name_a_family():
    named = re.compile(rf"(?<![a-z])({'|'.join(FAMILIES)})(?![a-z])", re.IGNORECASE)
    others = [path for path in files() if path.parts[0] not in NAME_FAMILIES]
    found = {path.as_posix() for path in others if named.search((HOUSE / path).read_text())}
    found |= {path.as_posix() for path in others if named.search(path.as_posix())}
    only_needed(found, FAMILY_EXCEPTIONS)


def test_only_checkpoints_import_orbax():
    found = {path.parts[0] for path in files() for name in imported(path) if "orbax" in name}
    assert found == {"checkpoints"}


ASKING = {"default_backend", "platform_dependent", "get_backend", "lowering_platforms"}


def test_only_xla_asks_for_the_backend():
    def asks(path):
        nodes = list(ast.walk(tree(path)))
        names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        return ASKING & (names | {node.arg for node in nodes if isinstance(node, ast.keyword)})

    asking = [path for path in files() if asks(path)]
    assert any(path.parts[0] == "xla" for path in asking)
    only_needed({p.as_posix() for p in asking if p.parts[0] != "xla"}, BACKEND_EXCEPTIONS)


def test_the_top_shelf_is_short():
    assert len(SHELF) <= 8, SHELF


def test_no_package_is_hidden_by_a_function_of_its_name():
    for package in PACKAGES:
        found = getattr(snn, package, None)
        assert found is None or found.__name__ == f"snnvit_jax.{package}"


def levels():
    """The packages from the ground up: none imports one that comes after it."""
    sorter = graphlib.TopologicalSorter(imports())
    sorter.prepare()
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        yield from ready
        sorter.done(*ready)


def layout():
    """The tree of the package as the README shows it: first lines of docstrings."""
    modules = {f"{name}.py": pathlib.Path(f"{name}.py") for name in SHELF if name != "__init__"}
    packages = {f"{name}/": pathlib.Path(name) / "__init__.py" for name in levels()}
    first = {n: ast.get_docstring(tree(p)).splitlines()[0] for n, p in (modules | packages).items()}
    return "".join(f"  {name:<14} {line.rstrip('.')}\n" for name, line in first.items())


README = ROOT / "README.md"
TREE = re.compile(r"(?<=```text\nsnnvit_jax/\n).*?(?=```)", re.DOTALL)


def test_the_readme_shows_the_packages_as_their_docstrings_do():
    """`python tests/test_house.py` writes it anew."""
    assert TREE.search(README.read_text()).group() == layout()


if __name__ == "__main__":
    README.write_text(TREE.sub(lambda _: layout(), README.read_text()))
