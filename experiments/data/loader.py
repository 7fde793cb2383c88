"""Times whole batches from the loader beside its own transforms, called one image after another.

    python experiments/data/loader.py --data-dir DIR [--out FILE]

DIR holds cifar10 and imagenet2012 as prepared by TensorFlow Datasets with
file_format="array_record". The loader's overhead is its processor time for an image (all threads),
in units of that of the transforms alone, minus one. Images per second are of the wall clock, and
depend on what else the machine does. The ways take turns in each repetition.
"""

import argparse
import itertools
import json
import pathlib
import statistics
import time

from throughput import recipe

from snnvit_jax.data import loader, sources
from snnvit_jax.data.augment.pipeline import create_augment
from snnvit_jax.data.order import TrainingOrder

SETS = {"imagenet2012": (32, 640), "cifar10": (128, 12_800)}  # name -> (batch size, images)


def alone(source, augment, images, **_):
    """Takes images one after another, without a loader."""
    order = TrainingOrder(source.examples, augment, seed=0)
    for position in range(images):
        order[position]


def batches(source, augment, images, batch_size, workers, size):
    """Takes the same images as batches."""
    options = loader.LoaderOptions(batch_size, (size, size, 3), workers)
    with loader.train_batches(source, augment, options, seed=0) as found:
        next(found)  # worker processes have started
        yield
        for _ in itertools.islice(found, images // batch_size - 1):
            pass


def timed(take, images):
    """Returns seconds of (processor, wall) for an image."""
    start = time.process_time(), time.perf_counter()
    take()
    return [
        (end - begin) / images
        for begin, end in zip(start, (time.process_time(), time.perf_counter()), strict=True)
    ]


def measure(name, options):
    """Returns {way: [(processor, wall) seconds for an image]}."""
    batch_size, images = SETS[name]
    settings = recipe(name)
    source = sources.load(name, "train", options.data_dir)
    augment = create_augment(settings, 3)
    ways = {"transforms alone": None, "loader, threads": 0, "loader, 2 processes": 2}
    seconds = {way: [] for way in ways}
    for _, (way, workers) in itertools.product(range(options.repetitions), ways.items()):
        if workers is None:
            take, count = (lambda: alone(source, augment, images)), images
        else:
            running = batches(source, augment, images, batch_size, workers, settings.image_size)
            next(running)
            take, count = (lambda running=running: next(running, None)), images - batch_size
        seconds[way].append(timed(take, count))
    return seconds


def table(seconds):
    """Returns the lines of a Markdown table of medians."""
    base = statistics.median(cpu for cpu, _ in seconds["transforms alone"])
    lines = [
        "| | processor time for an image | overhead | images per second |",
        "|---|---|---|---|",
    ]
    for way, values in seconds.items():
        cpu, wall = (statistics.median(column) for column in zip(*values, strict=True))
        cost = (
            "| (in other processes) | |"
            if "processes" in way
            else (f"| {cpu * 1e3:.3f} ms | {100 * (cpu / base - 1):.0f} % |")
        )
        lines.append(f"| {way} {cost} {1 / wall:,.0f} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out")
    options = parser.parse_args()
    results = {}
    for name in SETS:
        results[name] = measure(name, options)
        print("\n".join(["", name, "", *table(results[name])]), flush=True)
    if options.out:
        pathlib.Path(options.out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
