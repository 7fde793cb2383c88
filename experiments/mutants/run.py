"""Mutants: small faults put into the code one by one, and the test that finds each.

    python experiments/mutants/run.py OUT [--seed=0] [--share=1.0] [--python=PYTHON]

Needs `pip install cosmic-ray==8.7.0`, in an environment of its own if wanted (then --python is the
interpreter that runs the tests). Places in the code are drawn by a seed, and at each place one of
the tool's operators; tests run in a copy of the working tree. Results are kept in OUT/mutants.json,
one entry a mutant, with those of OUT/explained.json beside them; what is there already is not done
again. `--again` tries those survivors again that are not explained.
"""

import argparse
import collections
import difflib
import itertools
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import subprocess
import tempfile
import time

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.testing import run_tests
from cosmic_ray.work_item import TestOutcome
from targets import BY_HAND, TARGETS

from snnvit_jax.common.arguments import number, output_folder, whole

ROOT = pathlib.Path(__file__).parents[2]
# Operators whose mutants are neither trivial (a shift of a float is an error) nor about nothing.
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow")
_LOGIC = ("BitOr", "BitAnd", "BitXor")
OPERATORS = re.compile(
    rf"core/(ReplaceBinaryOperator_({'|'.join(_ARITHMETIC)})_({'|'.join(_ARITHMETIC)})"
    rf"|ReplaceBinaryOperator_({'|'.join(_LOGIC)})_({'|'.join(_LOGIC)})"
    r"|ReplaceComparisonOperator_.*|ReplaceUnaryOperator_.*|AddNot|ReplaceTrueWithFalse"
    r"|ReplaceFalseWithTrue|ReplaceAndWithOr|ReplaceOrWithAnd|NumberReplacer"
    r"|ReplaceBreakWithContinue|ReplaceContinueWithBreak|ZeroIterationForLoop)"
)


def places(text):
    """Returns {(line, column): [(operator, occurrence), ...]} of all mutants of a module.

    Args:
      text: of the module.
    """
    found, tree = collections.defaultdict(list), get_ast(text)
    nodes = list(ast_nodes(tree))
    for name in filter(OPERATORS.match, sorted(plugins.operator_names())):
        operator = plugins.get_operator(name)()
        positions = itertools.chain(*(operator.mutation_positions(node) for node in nodes))
        for occurrence, (start, _) in enumerate(positions):
            found[start].append((name, occurrence))
    return dict(found)


def drawn(tree, seed, share):
    """Yields (group, module, "line:column", operator, mutated text): by hand first, then drawn.

    Args:
      tree: folder of the code.
      seed: of the draw.
      share: of the numbers in `TARGETS`.
    """
    for module, old, new in BY_HAND:
        text = _path(tree, module).read_text()
        if text.count(old) != 1:
            raise ValueError(f"{old!r} must stand once in {module}")
        before = text[: text.index(old)]
        place = f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10)) - 1}"
        yield "by hand", module, place, f"{old} -> {new}", text.replace(old, new)
    sampled = []
    for group, (count, modules) in TARGETS.items():
        generator = random.Random(f"{seed} {group}")
        texts = {module: _path(tree, module).read_text() for module in modules}
        spots = [(m, *spot) for m in modules for spot in places(texts[m]).items()]
        for module, (line, column), choices in generator.sample(spots, round(count * share)):
            name, occurrence = generator.choice(choices)
            mutated = mutate_code(texts[module], plugins.get_operator(name)(), occurrence)
            sampled.append((group, module, f"{line}:{column}", name[len("core/") :], mutated))
    yield from random.Random(seed).sample(sampled, len(sampled))  # all groups in any part of a run


def again(tree, recorded):
    """Yields mutants, as `drawn` does, from their entries in mutants.json.

    Args:
      tree: folder of the code.
      recorded: {mutant: its entry}; its changed line stands in the code as it did then, perhaps at
        another place.
    """
    for name, entry in recorded.items():
        where, operator = name.split(" ", 1)
        module, line, column = where.split(":")
        module = module.removesuffix(".py")
        lines = _path(tree, module).read_text().splitlines(keepends=True)
        (old,), (new,) = ([x[1:] for x in entry["change"] if x[0] == sign] for sign in "-+")
        same = [i for i, text in enumerate(lines) if text.rstrip("\n") == old]
        nearest = min(same, key=lambda i: abs(i + 1 - int(line)))
        lines[nearest] = f"{new}\n"
        yield entry["group"], module, f"{line}:{column}", operator, "".join(lines)


def _path(tree, module):
    return tree / "snnvit_jax" / f"{module}.py"


def tests_of(module):
    """Returns the tests that must find a mutant of a module.

    Args:
      module: its path below snnvit_jax, without ".py".
    """
    (found,) = [tests[module] for _, tests in TARGETS.values() if module in tests]
    names = (name.partition("::") for name in found)
    return [f"tests/{file}.py{colons}{test}" for file, colons, test in names]


def copied(folder):
    """Copies the working tree's files, those that git ignores excepted.

    Args:
      folder: where to; must not exist.
    """
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(lambda name: (ROOT / name).is_file(), listed.stdout.splitlines()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    cache = ROOT / ".jax_cache"  # compiled programs: most are the same with a mutant
    cache.mkdir(exist_ok=True)
    (folder / ".jax_cache").symlink_to(cache.resolve())
    return folder


class Trial:
    """Runs tests on mutants in a copy of the tree.

    Attributes:
      root: the copy.
      python: the interpreter.
      timeout: seconds after which a mutant counts as found, because it hangs.
    """

    def __init__(self, root, python, timeout):
        self.root, self.python, self.timeout = root, python, timeout
        subprocess.run([python, "-m", "compileall", "-q", root], check=True)
        os.chdir(root)
        os.environ["PYTHONPATH"] = str(root)  # also of scripts that tests start
        if self.of("neurons/surrogates", "1 / 0\n") is None:
            raise RuntimeError(f"tests pass without a module: they import another copy than {root}")

    def of(self, module, mutated):
        """Returns by what a mutant is found: a test, "timeout" or "import"; None if it survives."""
        path, original = _path(self.root, module), _path(self.root, module).read_text()
        path.write_text(mutated)
        try:
            command = f"{self.python} -m pytest -n 0 -x {' '.join(tests_of(module))}"
            outcome, output = run_tests(command, self.timeout)
        finally:
            path.write_text(original)
        if outcome == TestOutcome.SURVIVED:
            return None
        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
        return "timeout" if output == "timeout" else failed[1] if failed else "import"

    def check(self, tests):
        """Raises RuntimeError unless tests pass without a mutant, so that it is what they found.

        Args:
          tests: names as pytest gives them.
        """
        quoted = " ".join(map(shlex.quote, sorted(tests)))
        outcome, output = run_tests(f"{self.python} -m pytest -n 0 {quoted}", 3600)
        if tests and outcome != TestOutcome.SURVIVED:
            raise RuntimeError(f"tests fail without a mutant:\n{output}")


def difference(original, mutated):
    """Returns the lines that a mutant takes away (-) and adds (+)."""
    lines = [text.splitlines() for text in (original, mutated)]
    changed = list(difflib.unified_diff(*lines, lineterm="", n=0))[2:]
    return [line for line in changed if not line.startswith("@@")]


def markdown(found, explained):
    """Returns the results as Markdown tables: how many, and each.

    Args:
      found: {mutant: its entry}.
      explained: {mutant: why it makes no difference}.
    """
    counts = collections.defaultdict(collections.Counter)
    for entry in found.values():
        counts[entry["group"]]["killed" if entry["killed_by"] else "survived"] += 1
    lines = ["| group | mutants | killed | survived |", "|---|---|---|---|"]
    for group, count in (*counts.items(), ("all", sum(counts.values(), collections.Counter()))):
        lines.append(f"| {group} | {count.total()} | {count['killed']} | {count['survived']} |")
    lines += ["", "| mutant | what | killed by |", "|---|---|---|"]
    for name, entry in found.items():
        change = "<br>".join(f"`{line[0]} {line[1:].strip()}`" for line in entry["change"])
        by = entry["killed_by"] or f"**survives**: {explained.get(name, 'not explained')}"
        cells = (name, change, by)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=output_folder)
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--share", type=number(0, 1), default=1.0, help="of targets.py's mutants")
    parser.add_argument("--python", default="python", help="interpreter that runs the tests")
    parser.add_argument("--timeout", type=whole(1), default=1200, help="seconds for a mutant")
    parser.add_argument("--group", action="append", help="of targets.py; may come several times")
    parser.add_argument("--again", action="store_true", help="try unexplained survivors again")
    options = parser.parse_args()
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    found, explained = (_read(out / name) for name in ("mutants.json", "explained.json"))
    asking = [name for name in found if not found[name]["killed_by"] and name not in explained]
    survivors = {name: found[name] for name in asking}
    with tempfile.TemporaryDirectory() as folder:
        tree = copied(pathlib.Path(folder) / "tree")
        trial = Trial(tree, options.python, options.timeout)
        drawn_now = drawn(tree, options.seed, options.share)
        mutants = again(tree, survivors) if options.again else drawn_now
        for group, module, place, operator, mutated in mutants:
            name = f"{module}.py:{place} {operator}"
            known = name in found and not options.again
            if known or (options.group and group not in options.group):
                continue
            original, start = _path(tree, module).read_text(), time.time()
            entry = {"group": group, "change": difference(original, mutated)}
            entry["killed_by"] = trial.of(module, mutated)
            found[name] = entry | {"seconds": round(time.time() - start)}
            print(name, entry["change"], entry["killed_by"] or "SURVIVES", flush=True)
            (out / "mutants.json").write_text(json.dumps(found, indent=1) + "\n")
        trial.check({x["killed_by"] for x in found.values()} - {None, "timeout", "import"})
    print(markdown(found, explained))


def _read(path):
    return json.loads(path.read_text()) if path.exists() else {}


if __name__ == "__main__":
    main()
