"""Draws the curves of a metrics.jsonl: python draw.py METRICS.jsonl FIGURE.png."""

import json
import pathlib
import sys

from snnvit_jax.report import figures


def main():
    source, target = map(pathlib.Path, sys.argv[1:])
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    figures.draw_curves(lines).savefig(target, dpi=120)


if __name__ == "__main__":
    main()
