"""Accuracy against average time steps: learned schedules beside networks with fixed time steps.

    python experiments/cifar10/frontier.py OUT --config=configs/cifar10.py:small -- \
        --config.data.dir=DIR [more overrides for every run]

Trains one network for each target and seed, which learns its time steps out of --time-steps, and
one for each fixed T, which keeps all of them; everything else is the same. With --spike-penalties
each of them again for each price of spikes. A run lies in OUT/NAME: one that is finished is not
repeated, one cut short goes on. Its arguments lie in OUT/NAME.command.json: with others, a finished
run is refused. Writes OUT/frontier.json after each run, OUT/frontier.png and tables of all networks
and of means and spreads over the seeds; with --no-training of those that are finished by now, with
--results of those in such JSON files, one or several put together. OUT/frontier.json keeps what it
says of networks that were not asked for. Seeds come one after the other.
"""

import argparse
import concurrent.futures
import dataclasses
import itertools
import json
import os
import pathlib
import sys

import numpy as np
import tqdm
from matplotlib.figure import Figure

from snnvit_jax.common import files, markdown, values
from snnvit_jax.common.arguments import number, output_folder, whole
from snnvit_jax.report import figures
from snnvit_jax.runs import apart
from snnvit_jax.runs.workdir import Workdir

ROOT = pathlib.Path(__file__).parents[2]
LOOK = {
    "learned": {"color": figures.ACCENT, "markers": "o^v", "label": "learned, out of T = {}"},
    **{
        f"by {what}": {
            "color": figures.INK,
            "markers": marker,
            "label": f"measured, by {what}, out of T = {{}}",
        }
        for what, marker in (("change", "D"), ("loss", "P"), ("energy", "X"))
    },
    "fixed": {"color": figures.SECOND, "markers": "s", "label": "all T steps"},
}
SHOWN = {  # of a network, and what it must be
    **dict.fromkeys(("target", "spike_penalty", "seconds"), values.number(0)),
    **{"average_time_steps": values.number(0), "energy_uj": values.optional(values.number(0))},
    **{"accuracy": values.number(0, 1), "seed": values.whole(0)},
    **dict.fromkeys(("examples", "time_steps"), values.whole(1)),
}
NOT_COUNTED = "not counted"  # the energy of some models, see `evaluation.evaluate`
LINES = (":", "-", "--", "-.")  # of the penalties on spikes, in turn


@dataclasses.dataclass(frozen=True)
class Point:
    """One network to train.

    Attributes:
      kind: "learned" or "fixed"; results of search.py may be shown beside them, "by change", ...
      time_steps: T.
      target: average time steps to end at; T for "fixed", which leaves nothing to give up.
      seed: of the run.
      spike_penalty: weight of the accumulates in the objective.
    """

    kind: str
    time_steps: int
    target: float
    seed: int
    spike_penalty: float = 0.0

    @property
    def name(self):
        """Of its folder."""
        steps = f"{self.target:g}-of-{self.time_steps}" if self.kind == "learned" else self.target
        price = f"-spikes{self.spike_penalty:g}" if self.spike_penalty else ""
        return f"{self.kind}-{steps}-seed{self.seed}{price}"

    @property
    def overrides(self):
        """Of the configuration, as arguments."""
        return [
            f"--config.model.time_steps={self.time_steps}",
            f"--config.target_time_steps={float(self.target)}",
            f"--config.seed={self.seed}",
            f"--config.spike_penalty={self.spike_penalty}",
        ]


def points(options):
    """Returns every `Point` asked for, learned and fixed ones in turn."""
    found = []
    for seed, price in itertools.product(options.seeds, options.spike_penalties):
        learned = [Point("learned", options.time_steps, t, seed, price) for t in options.targets]
        fixed = [Point("fixed", t, t, seed, price) for t in options.fixed]
        pairs = itertools.zip_longest(learned, fixed)
        found += [point for pair in pairs for point in pair if point is not None]
    return found


def arguments_of(point, options):
    """Returns the arguments of a network's training."""
    return [f"--config={options.config}", *options.overrides, *point.overrides]


def check_finished(wanted, options):
    """Raises SystemExit if one of these networks is finished, but with other arguments."""
    try:
        for point in wanted:
            apart.check_arguments(options.out / point.name, arguments_of(point, options))
    except RuntimeError as error:
        sys.exit(f"error: {error}")


def train(point, options, cores):
    """Trains one network in a process of its own, unless its folder holds it finished.

    Raises:
      RuntimeError: with the end of its output, if it fails.
    """
    # Networks trained side by side do not compete.
    prefix = ("taskset", "-c", ",".join(map(str, cores))) if cores else ()
    folder, arguments = options.out / point.name, arguments_of(point, options)
    # In the user's folder, from which the paths among the arguments are meant.
    apart.train(folder, arguments, prefix=prefix, append=False, root=ROOT)


def train_all(wanted, options):
    """Trains all networks, `jobs` at a time, each of them on its share of the cores.

    Raises:
      RuntimeError: of the first network that failed, after all others are done.
    """
    every = sorted(os.sched_getaffinity(0))
    shares = [every[i :: options.jobs] for i in range(options.jobs)]
    free = list(shares) if options.jobs > 1 else [None]

    def one(point):
        cores = free.pop()
        try:
            train(point, options, cores)
        finally:
            free.append(cores)

    failures = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        running = [pool.submit(one, point) for point in wanted]
        done = concurrent.futures.as_completed(running)
        for future in tqdm.tqdm(done, total=len(wanted), unit="network"):
            write(wanted, options)  # here and not in `one`: a single thread writes the file
            if failure := future.exception():
                tqdm.tqdm.write(str(failure), file=sys.stderr)
                failures.append(failure)
    if failures:
        raise failures[0]


def read(point, options):
    """Returns what is known of a network, or None if it is not finished."""
    workdir = Workdir(options.out / point.name)
    if not workdir.is_finished():
        return None
    summary = json.loads(workdir.summary.read_text())
    keys = ("accuracy", "split", "examples", "average_time_steps", "energy_uj", "firing_rate")
    keys += ("epochs", "seconds", "images_per_second")
    modules = json.loads(workdir.schedule.read_text())["modules"]
    return dataclasses.asdict(point) | {key: summary[key] for key in keys} | {"modules": modules}


def write(wanted, options):
    """Writes what is known so far, unless that is nothing; returns it.

    What OUT/frontier.json says of other networks than these stays there.
    """
    path = options.out / "frontier.json"
    found = {point.name: read(point, options) for point in wanted}
    found = {name: result for name, result in found.items() if result}
    if found:
        others = _others(path, {point.name for point in wanted})
        files.write_text(path, json.dumps(found | others, indent=1) + "\n")
    return found


def _others(path, names):
    """What a file of `write` says of networks besides these; nothing if there is no such file."""
    try:
        before = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    before = before if isinstance(before, dict) else {}
    return {name: one for name, one in before.items() if name not in names}


def spread(found):
    """Returns means and spreads over the seeds of each kind of network, fewest time steps first.

    Args:
      found: of `write`.

    Returns:
      [dict]: "kind", "time_steps", "target", "spike_penalty", "seeds" (a list), and of "accuracy",
      "average_time_steps" and "energy_uj" the mean; "accuracy_sd" and "energy_uj_sd" are sample
      standard deviations, None of one seed. Both are None where the energy of a network was not
      counted.
    """
    kinds = ("kind", "time_steps", "target", "spike_penalty")
    grouped = {}
    for one in found.values():
        grouped.setdefault(tuple(one[key] for key in kinds), []).append(one)
    means = []
    for kind, ones in grouped.items():
        group = dict(zip(kinds, kind, strict=True)) | {"seeds": sorted(o["seed"] for o in ones)}
        for key in ("accuracy", "average_time_steps", "energy_uj"):
            each = [one[key] for one in ones]
            counted = None not in each
            group[key] = float(np.mean(each)) if counted else None
            several = counted and len(ones) > 1
            group[f"{key}_sd"] = float(np.std(each, ddof=1)) if several else None
        means.append(group | {"examples": ones[0]["examples"]})
    return sorted(means, key=lambda one: (one["average_time_steps"], one["kind"]))


def spread_table(means):
    """Returns the result of `spread` as a Markdown table."""
    head = ["", "seeds", "average time steps"]
    head += ["accuracy in %, mean ± sd", "energy in µJ, mean ± sd"]
    rows = []
    for one in means:
        accuracy = _with_spread(100 * one["accuracy"], one["accuracy_sd"], 100)
        energy = _with_spread(one["energy_uj"], one["energy_uj_sd"], 1)
        seeds, steps = ", ".join(map(str, one["seeds"])), f"{one['average_time_steps']:.2f}"
        rows.append([_called(one), seeds, steps, accuracy, energy])
    return markdown.table(head, rows)


def _with_spread(mean, deviation, factor):
    if mean is None:
        return NOT_COUNTED
    return f"{mean:.2f}" + ("" if deviation is None else f" ± {factor * deviation:.2f}")


def _called(one):
    price = f", spike penalty {one['spike_penalty']:g}" if one["spike_penalty"] else ""
    if one["kind"] == "fixed":
        return f"T = {one['time_steps']}, all steps{price}"
    return f"{one['kind']}, target {one['target']:g} of {one['time_steps']}{price}"


def table(found):
    """Returns the result as a Markdown table, fewest time steps first."""
    head = ["", "spike penalty", "seed", "average time steps", "accuracy"]
    head += ["energy of an image", "training"]
    rows = []
    for one in sorted(found.values(), key=lambda one: (one["average_time_steps"], one["kind"])):
        some = f"{one['kind']}, out of {one['time_steps']}"
        what = f"T = {one['time_steps']}, all steps" if one["kind"] == "fixed" else some
        cells = [what, f"{one['spike_penalty']:g}", one["seed"]]
        cells += [f"{one['average_time_steps']:.2f}", f"{one['accuracy']:.4f}"]
        energy = one["energy_uj"]
        cells.append(NOT_COUNTED if energy is None else f"{energy:.3g} µJ")
        rows.append([*cells, f"{one['seconds'] / 60:.0f} min"])
    return markdown.table(head, rows)


def series(means):
    """Yields (networks of a kind, T and price, by average time steps; how to draw them)."""
    prices = sorted({one["spike_penalty"] for one in means})
    depths = sorted({one["time_steps"] for one in means if one["kind"] != "fixed"}, reverse=True)
    some = itertools.product([kind for kind in LOOK if kind != "fixed"], depths, prices)
    # None: fixed, each with its own
    for kind, T, price in (*some, *itertools.product(["fixed"], [None], prices)):
        ones = [o for o in means if (o["kind"], o["spike_penalty"]) == (kind, price)]
        ones = [o for o in ones if T in (None, o["time_steps"])]
        if not ones:
            continue
        look, line = LOOK[kind], LINES[prices.index(price) % len(LINES)]
        marker = look["markers"][depths.index(T) % len(look["markers"]) if T else 0]
        label = look["label"].format(T) + (f", spike penalty {price:g}" if price else "")
        yield ones, {"color": look["color"], "fmt": marker + line, "label": label}


def draw(found):
    """Returns a figure of accuracy against average time steps, and against energy where counted.

    Points are means over seeds. Bars are the standard deviation over seeds; of one seed the
    standard error of an accuracy measured on so many images, in which that of a training repeated
    with another seed is not contained.
    """
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ones, style in series(spread(found)):
        for ax, key in zip(axes, ("average_time_steps", "energy_uj"), strict=True):
            known = [one for one in ones if one[key] is not None]
            x, accuracy = ([one[name] for one in known] for name in (key, "accuracy"))
            error = np.array([_bar(one) for one in known])
            ax.errorbar(x, 100 * np.array(accuracy), 100 * error, capsize=2, **style)
    axes[0].set(xlabel="average time steps", ylabel="held-out accuracy in %", xlim=(0, None))
    axes[1].set(xlabel="energy of an image in µJ", xlim=(0, None))
    axes[1].legend(frameon=False, loc="best", fontsize="small")
    for ax in axes:
        ax.grid(linewidth=0.6)
    return figure


def _bar(one):
    """Half of the length of an error bar, as a share of 1."""
    if one["accuracy_sd"] is not None:
        return one["accuracy_sd"]
    return (one["accuracy"] * (1 - one["accuracy"]) / one["examples"]) ** 0.5


def parse(arguments):
    """Returns the options; whatever follows -- is for the command line of every run."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        epilog="What follows -- overrides the configuration of every run.",
    )
    parser.add_argument("out", type=output_folder)
    parser.add_argument("--config", default="configs/cifar10.py:small")
    parser.add_argument("--time-steps", type=whole(1), default=4, help="T to learn out of")
    parser.add_argument("--targets", type=number(1), nargs="*", default=[2.0, 1.5, 3.0, 1.25, 2.5])
    parser.add_argument("--fixed", type=whole(1), nargs="*", default=[4, 2, 1, 6])
    parser.add_argument("--spike-penalties", type=number(0), nargs="+", default=[0.0])
    parser.add_argument("--seeds", type=whole(0), nargs="+", default=[0])
    parser.add_argument("--jobs", type=whole(1), default=1, help="networks trained side by side")
    parser.add_argument("--no-training", action="store_true", help="show what is finished")
    parser.add_argument("--results", type=pathlib.Path, nargs="+", help="show these JSON files")
    options = apart.parse(parser, arguments)
    for target in options.targets:
        if target > options.time_steps:
            parser.error(f"--targets: {target} must be at most --time-steps={options.time_steps}")
    cores = len(os.sched_getaffinity(0))
    if options.jobs > cores:
        parser.error(f"--jobs={options.jobs} must be at most the {cores} cores")
    options.out = options.out.absolute()
    return options


def read_results(paths):
    """Returns what `write` wrote to JSON files, put together.

    Args:
      paths: of the files.

    Raises:
      SystemExit: naming a file that cannot be read, or two that say different things of a network
        or were measured on different examples.
    """
    found, whose = {}, {}
    for path in paths:
        try:
            more = json.loads(path.read_text())
            if not isinstance(more, dict) or not more or not all(map(_is_result, more.values())):
                raise ValueError("this is no file as frontier.py writes it")
        except (OSError, ValueError) as error:
            sys.exit(f"error: --results: {path}: {error}")
        for name, one in more.items():
            if name in found and found[name] != one:
                both = f"{whose[name]} and {path}"
                sys.exit(f"error: --results: {both} say different things of {name}")
            found[name], whose[name] = one, whose.get(name, path)
    _check_examples(found, whose)
    return found


def _check_examples(found, whose):
    """Raises SystemExit if networks were measured on different examples.

    Args:
      found: {name: what is known of a network}.
      whose: {name: path of the file that says it}.
    """
    seen = {}  # {what was measured on: the first file that says so}
    for name, one in found.items():
        seen.setdefault((one.get("split"), one["examples"]), whose[name])
    if len(seen) > 1:
        said = (f"{count} examples of {split} in {path}" for (split, count), path in seen.items())
        sys.exit(f"error: --results: networks measured on different data: {', '.join(said)}")


def _is_result(one):
    """Whether this is what `read` returns of a network, as far as it is shown."""
    if not isinstance(one, dict) or one.get("kind") not in list(LOOK):
        return False
    return all(key in one and rule.fits(one[key]) for key, rule in SHOWN.items())


def train_wanted(options):
    """Returns what is known of the networks that are wanted, trained before unless forbidden.

    Raises:
      SystemExit: if one of them was trained with other arguments, or none is finished.
    """
    wanted = points(options)
    if not options.no_training:
        check_finished(wanted, options)
        train_all(wanted, options)
    found = write(wanted, options)
    if not found:
        sys.exit(f"error: none of the {len(wanted)} networks in {options.out} is finished")
    return found


def main():
    options = parse(sys.argv[1:])
    options.out.mkdir(parents=True, exist_ok=True)
    found = read_results(options.results) if options.results else train_wanted(options)
    print(table(found), spread_table(spread(found)), sep="\n", end="")
    with figures.style():
        (options.out / "frontier.png").write_bytes(figures.as_png(draw(found)))


if __name__ == "__main__":
    main()
