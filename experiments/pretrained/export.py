"""Writes the network of a finished run as a folder that `snn.load_pretrained` reads, with its card.

    python experiments/pretrained/export.py WORKDIR NAME --commit=COMMIT --hardware=TEXT \
        --command=TEXT [--checkpoint=best] [--split=test] [--note=TEXT] [--out=DIR] \
        [--mean-with WORKDIR ...]

With --mean-with it is the mean of the weights of several runs that began at the same weights.
Without --out it becomes a network of the package: snnvit_jax/weights/networks/NAME. The accuracy
on the card is measured with the file as it is loaded.
"""

import argparse
import pathlib
import re

from snnvit_jax.common.arguments import output_folder
from snnvit_jax.pretrained import card
from snnvit_jax.pretrained.catalogue import NETWORKS
from snnvit_jax.runs import publishing


def parse(arguments=None):
    """Returns the options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("name", help="lower case, digits and _")
    parser.add_argument("--commit", required=True, help="of the code that trained it")
    parser.add_argument("--hardware", required=True, help="that it was trained on, in words")
    parser.add_argument("--command", required=True, help="that trains it")
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last")
    parser.add_argument("--split", help="to measure on; default the run's held-out split")
    parser.add_argument("--note", default="", help="what else one should know")
    parser.add_argument(
        "--mean-with", nargs="+", default=(), metavar="WORKDIR", help="runs to average with"
    )
    parser.add_argument("--out", type=output_folder, default=NETWORKS, help="parent folder")
    options = parser.parse_args(arguments)
    if not re.fullmatch("[a-z][a-z0-9_]*", options.name):
        parser.error(f"name {options.name!r} must be lower case, digits and _")
    return parser, options


def main():
    parser, options = parse()
    history = {key: getattr(options, key) for key in ("commit", "command", "hardware", "note")}
    target = options.out / options.name
    try:
        about = publishing.publish(
            options.workdir,
            target,
            history,
            options.checkpoint,
            options.split,
            options.mean_with,
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{card.render(about)}\n{target}")


if __name__ == "__main__":
    main()
