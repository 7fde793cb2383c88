"""Every family on the digits: what it reaches, at how many time steps, and what that costs.

    python experiments/families/run.py OUT [--families sdt qkformer] [--seeds 0 1 2] [-- overrides]

Trains `configs/digits.py:FAMILY` for each family and seed in OUT/FAMILY-seedN, first all families
with the first seed. A run that is finished is not repeated, one cut short goes on. Whatever is
finished, of any family and seed, is then measured once (OUT/FAMILY-seedN/measured.json) and written
to OUT/table.json, OUT/table.md (each run, then each family's mean and standard deviation) and
OUT/families.png, after every run. `--measure` trains nothing.
"""

import argparse
import itertools
import json
import pathlib
import re
import statistics
import sys

import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

import snnvit_jax as snn
from snnvit_jax.common import files, markdown
from snnvit_jax.common.arguments import output_folder, whole
from snnvit_jax.models import FAMILIES
from snnvit_jax.models.flops import model_flops
from snnvit_jax.report import figures
from snnvit_jax.runs import analysis, apart
from snnvit_jax.runs.workdir import Workdir

ROOT = pathlib.Path(__file__).parents[2]
NAME = re.compile(r"([a-z]+)-seed(\d+)")
HEAD = (
    *("family", "seed", "accuracy", "average time steps", "µJ an image", "µJ, integers multiply"),
    *("MFLOPs, masked", "FLOPs deployed / masked", "parameters", "training, minutes"),
)
MEANS = (
    *("family", "seeds", "accuracy in %", "average time steps", "µJ an image"),
    *("µJ, integers multiply", "FLOPs deployed / masked"),
)
MARKERS = "osD^vP*X"


def train(family, seed, options):
    """Trains one network in a process of its own, unless its folder holds it finished.

    Raises:
      RuntimeError: with the end of its output, if it fails.
    """
    settings = [f"--config=configs/digits.py:{family}", f"--config.seed={seed}"]
    apart.train(options.out / f"{family}-seed{seed}", [*settings, *options.overrides], root=ROOT)


def measure(folder):
    """Returns what is to be known of a finished run; kept in its folder.

    Args:
      folder: of the run.
    """
    kept, workdir = folder / "measured.json", Workdir(folder)
    if kept.exists():
        return json.loads(kept.read_text())
    summary = json.loads(workdir.summary.read_text())
    experiment, variables = analysis.open_run(folder)
    model, variables = experiment.model, jax.device_get(variables)
    energy = analysis.evaluate(experiment, variables).energy
    family, seed = NAME.fullmatch(folder.name).groups()
    shape = experiment.image_shape
    found = {"family": family, "seed": int(seed)}
    keys = ("accuracy", "examples", "average_time_steps", "time_steps", "epochs", "seconds")
    found |= {key: summary[key] for key in keys}
    found |= {
        "energy_uj": energy.microjoule,
        "energy_uj_if_integers_multiply": energy.under(integers="multiply").microjoule,
        "not_spiking": energy.not_spiking,
        "flops_masked": model_flops(model, variables, 1, shape),
        "flops_deployed": snn.deploy(model, variables).flops(1),
        "parameters": sum(x.size for x in jax.tree.leaves(variables["params"])),
        "image_size": shape[0],
    }
    files.write_text(kept, json.dumps(found, indent=1) + "\n")
    return found


def write(out):
    """Writes the table and the figure of whatever is finished.

    Args:
      out: folder of the runs.

    Returns:
      The rows, from `measure`, in the order of the families.
    """
    folders = [p for p in sorted(out.iterdir()) if p.is_dir() and NAME.fullmatch(p.name)]
    rows = [measure(folder) for folder in folders if Workdir(folder).is_finished()]
    order = list(FAMILIES)
    rows.sort(key=lambda row: (order.index(row["family"]), row["seed"]))
    files.write_text(out / "table.json", json.dumps(rows, indent=1) + "\n")
    tables = (
        markdown.table(HEAD, map(cells, rows)),
        markdown.table(MEANS, map(means, by_family(rows))),
    )
    text = "\n".join(tables)
    files.write_text(out / "table.md", text)
    if rows:
        with figures.style():
            (out / "families.png").write_bytes(figures.as_png(draw(rows)))
    return rows


def by_family(rows):
    """Returns the rows of each family, a list each; rows of a family stand together."""
    return [list(ones) for _, ones in itertools.groupby(rows, key=lambda row: row["family"])]


def means(ones):
    """Returns a family's mean over its seeds as cells; with the standard deviation, of two or more.

    Args:
      ones: the rows of one family, from `measure`.
    """

    def mean(digits, *values):
        spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{statistics.fmean(values):.{digits}f}{spread}"

    return (
        *(ones[0]["family"], str(len(ones))),
        mean(2, *(100 * row["accuracy"] for row in ones)),
        mean(2, *(row["average_time_steps"] for row in ones)),
        mean(2, *(row["energy_uj"] for row in ones)),
        mean(2, *(row["energy_uj_if_integers_multiply"] for row in ones)),
        mean(2, *(row["flops_deployed"] / row["flops_masked"] for row in ones)),
    )


def cells(row):
    """Returns a row's cells as text.

    Args:
      row: from `measure`.
    """
    return (
        *(row["family"], str(row["seed"]), f"{row['accuracy']:.4f}"),
        f"{row['average_time_steps']:.2f} of {row['time_steps']}",
        f"{row['energy_uj']:.3g}",
        f"{row['energy_uj_if_integers_multiply']:.3g}",
        f"{row['flops_masked'] / 1e6:.3g}",
        f"{row['flops_deployed'] / row['flops_masked']:.2f}",
        f"{row['parameters']:,}",
        f"{row['seconds'] / 60:.0f}",
    )


def draw(rows):
    """Returns a figure of accuracy against energy, under both conventions for integers.

    Bars are the standard error of an accuracy measured on so many images.

    Args:
      rows: from `measure`.
    """
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    conventions = {
        "energy_uj": "µJ an image, integers accumulate",
        "energy_uj_if_integers_multiply": "µJ an image, integers multiply",
    }
    names = list(dict.fromkeys(row["family"] for row in rows))
    for name, marker in zip(names, itertools.cycle(MARKERS), strict=False):
        ones = [row for row in rows if row["family"] == name]
        accuracy, n = (np.array([row[key] for row in ones]) for key in ("accuracy", "examples"))
        error = 100 * np.sqrt(accuracy * (1 - accuracy) / n)
        for ax, key in zip(axes, conventions, strict=True):
            x = [row[key] for row in ones]
            ax.errorbar(x, 100 * accuracy, error, fmt=marker, capsize=2, label=name)
    for ax, label in zip(axes, conventions.values(), strict=True):
        ax.set(xlabel=label, xscale="log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.grid(linewidth=0.6)
    axes[0].set(ylabel="held-out accuracy in %")
    axes[1].legend(frameon=False, fontsize="small")
    return figure


def parse(arguments):
    """Returns the options; whatever follows -- is for the command line of every run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=output_folder)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--seeds", type=whole(0), nargs="+", default=[0, 1, 2])
    parser.add_argument("--measure", action="store_true", help="of what is finished; train nothing")
    options = apart.parse(parser, arguments)
    options.out = options.out.absolute()
    return options


def main():
    options = parse(sys.argv[1:])
    options.out.mkdir(parents=True, exist_ok=True)
    failures = []
    wanted = [] if options.measure else itertools.product(options.seeds, options.families)
    for seed, family in wanted:
        print(f"{family}, seed {seed}", flush=True)
        try:
            train(family, seed, options)
            write(options.out)
        except RuntimeError as error:  # the others are trained nevertheless
            failures.append(error)
            print(error, file=sys.stderr)
    write(options.out)
    print((options.out / "table.md").read_text(), end="")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
