"""The same short training in float32 and in bfloat16, emulated where the CPU has none.

    python experiments/precision/run.py OUT [--networks digits cifar10] [--seeds 0 1] [-- overrides]

Trains each network of NETWORKS for so many steps in both types, with the same seeds, so the same
initial values, examples and order, in OUT/NETWORK-DTYPE-seedN. A run that is finished is not
repeated, one cut short goes on. All pairs that are finished, of any network and seed, are written
to OUT/table.json and OUT/table.md after every run. Overrides are configuration flags for every
run, for example --config.data.dir=DIR, where CIFAR-10 is.
"""

import argparse
import itertools
import json
import pathlib
import re
import statistics
import sys

from snnvit_jax.common import files, markdown
from snnvit_jax.common.arguments import output_folder, whole
from snnvit_jax.runs import apart
from snnvit_jax.runs.workdir import Workdir

ROOT = pathlib.Path(__file__).parents[2]
DTYPES = ("float32", "bfloat16")
NAME = re.compile(r"([a-z0-9]+)-([a-z0-9]+)-seed(\d+)")
# Network -> (configuration, training examples, what differs from it). Batches are of 64. The whole
# plan of the configuration, learned time steps included, is run through in these few steps. That of
# CIFAR-10 starts from a trained network with all steps on: 300 would not make one.
NETWORKS = {
    "digits": ("configs/digits.py", 1437, []),
    "cifar10": ("configs/cifar10.py:learned", 45_000, ["--config.data.eval_split=train[90%:94%]"]),
}
HEAD = (
    *("network", "seed", "accuracy, float32", "accuracy, bfloat16", "difference, points"),
    *("average time steps", "loss of the last steps"),
)
LAST = 100  # steps whose mean loss is compared


def train(network, dtype, seed, options):
    """Trains one network in a process of its own, unless its folder holds it finished.

    Raises:
      RuntimeError: with the end of its output, if it fails.
    """
    config, examples, changes = NETWORKS[network]
    epochs = options.steps * 64 / examples
    arguments = [
        *(
            f"--config={config}",
            f"--config.epochs={epochs}",
            f"--config.eval_every_epochs={epochs}",
        ),
        *(f"--config.seed={seed}", f"--config.model.dtype={dtype}", "--config.log_every_steps=20"),
        *(*changes, *options.overrides),
    ]
    apart.train(options.out / f"{network}-{dtype}-seed{seed}", arguments, root=ROOT)


def measured(folder):
    """Returns what is compared of a finished run: accuracy, time steps, loss."""
    summary = json.loads((folder / "summary.json").read_text())
    lines = [line for line in Workdir(folder).read_metrics() if "loss" in line]
    end = lines[-1]["step"]
    losses = [line["loss"] for line in lines if line["step"] > end - LAST]
    found = {
        name: summary[name] for name in ("accuracy", "average_time_steps", "steps", "examples")
    }
    return found | {"loss": statistics.fmean(losses)}


def pairs(out):
    """Returns {(network, seed): {dtype: what is compared}} of the pairs that are finished."""
    names = filter(None, (NAME.fullmatch(folder.name) for folder in out.iterdir()))
    found = {}
    for network, seed in sorted({(name[1], int(name[3])) for name in names}):
        folders = {dtype: out / f"{network}-{dtype}-seed{seed}" for dtype in DTYPES}
        if all(Workdir(folder).is_finished() for folder in folders.values()):
            found[network, seed] = {d: measured(folder) for d, folder in folders.items()}
    return found


def row(network, seed, pair):
    """Returns the cells of one line of the table."""
    wide, narrow = (pair[dtype] for dtype in DTYPES)
    points = 100 * (narrow["accuracy"] - wide["accuracy"])
    both = (
        f"{wide[name]:.{digits}f} / {narrow[name]:.{digits}f}"
        for name, digits in (("average_time_steps", 2), ("loss", 3))
    )
    accuracies = (f"{wide['accuracy']:.4f}", f"{narrow['accuracy']:.4f}")
    return (network, seed, *accuracies, f"{points:+.2f}", *both)


def write(options):
    """Writes the table of what is finished, as JSON and as Markdown."""
    found = pairs(options.out)
    text = markdown.table(HEAD, [row(*key, pair) for key, pair in found.items()])
    files.write_text(options.out / "table.md", text)
    listed = [{"network": n, "seed": s, **pair} for (n, s), pair in found.items()]
    files.write_text(options.out / "table.json", json.dumps(listed, indent=1) + "\n")
    print(text, end="", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=output_folder)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seeds", nargs="+", type=whole(0), default=[0])
    parser.add_argument("--steps", type=whole(1), default=300)
    options = apart.parse(parser, sys.argv[1:])
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    for seed, network, dtype in itertools.product(options.seeds, options.networks, DTYPES):
        train(network, dtype, seed, options)
        write(options)


if __name__ == "__main__":
    main()
