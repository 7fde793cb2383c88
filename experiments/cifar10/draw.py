"""Draws the curves of a metrics.jsonl: python draw.py METRICS.jsonl FIGURE.png."""

import argparse
import json
import pathlib

from snnvit_jax.common.arguments import output_file
from snnvit_jax.report import figures


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metrics", type=pathlib.Path)
    parser.add_argument("figure", type=output_file)
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.metrics.read_text().splitlines()]
    figures.draw_curves(lines).savefig(options.figure, dpi=120)


if __name__ == "__main__":
    main()
