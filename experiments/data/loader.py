"""Times whole batches from the loader beside its own transforms, called one image after another.

    python experiments/data/loader.py --data-dir DIR [--sets cifar10] [--out FILE]

DIR holds cifar10 and imagenet2012 as prepared by TensorFlow Datasets with
file_format="array_record". The loader's overhead is its processor time for an image (all threads,
and all worker processes, once each has sent a batch), in units of that of the transforms alone,
minus one. Images per second of a core are one by that time: they hold where the cores are busy
with other work too. Images per second are of the wall clock, and depend on that work. Bytes are
those of a batch's images, as they go to the device. The ways take turns in each repetition.
"""

import argparse
import itertools
import json
import multiprocessing
import statistics
import time

import psutil
from throughput import recipe

from snnvit_jax.common import markdown
from snnvit_jax.common.arguments import output_file, whole
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
    options = loader.LoaderOptions(
        batch_size, (size, size, 3), workers, dtype=augment.preprocess.dtype, erasing=True
    )
    with loader.train_batches(source, augment, options, seed=0) as found:
        # Worker processes have started, and so much is prepared as is kept ready.
        batch = list(itertools.islice(found, _AHEAD + max(1, workers)))[-1]
        yield batch["image"].nbytes
        yield sum(1 for _ in itertools.islice(found, images // batch_size))


_AHEAD = 4  # batches


def processor_time():
    """Seconds of this process's threads, and of its living worker processes."""
    workers = (psutil.Process(child.pid) for child in multiprocessing.active_children())
    return time.process_time() + sum(sum(worker.cpu_times()[:2]) for worker in workers)


def timed(take, images):
    """Returns seconds of (processor, wall) for an image."""
    start = processor_time(), time.perf_counter()
    take()
    ends = processor_time(), time.perf_counter()
    return [(end - begin) / images for begin, end in zip(start, ends, strict=True)]


def measure(name, options):
    """Returns ({way: [(processor, wall) seconds for an image]}, bytes of a batch's images)."""
    batch_size, images = SETS[name]
    settings = recipe(name)
    source = sources.load(name, "train", options.data_dir)
    augment = create_augment(settings, 3)
    ways = {"transforms alone": None, "loader, threads": 0, "loader, 2 processes": 2}
    seconds = {way: [] for way in ways}
    for _, (way, workers) in itertools.product(range(options.repetitions), ways.items()):
        if workers is None:
            seconds[way].append(timed(lambda: alone(source, augment, images), images))
            continue
        running = batches(source, augment, images, batch_size, workers, settings.image_size)
        size = next(running)
        seconds[way].append(timed(lambda running=running: next(running), images))
        running.close()
    return seconds, size


def table(seconds):
    """Returns a Markdown table of medians."""
    base = statistics.median(cpu for cpu, _ in seconds["transforms alone"])
    head = ["", "processor time for an image", "overhead", "images/s of a core", "images/s"]
    rows = []
    for way, values in seconds.items():
        cpu, wall = (statistics.median(column) for column in zip(*values, strict=True))
        cost = f"{cpu * 1e3:.3f} ms", f"{100 * (cpu / base - 1):.0f} %"
        rows.append([way, *cost, f"{1 / cpu:,.0f}", f"{1 / wall:,.0f}"])
    return markdown.table(head, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--repetitions", type=whole(1), default=5)
    parser.add_argument("--out", type=output_file)
    options = parser.parse_args()
    results = {}
    for name in options.sets:
        results[name], size = measure(name, options)
        heading = f"{name}, batches of {SETS[name][0]}, {size / 1e6:.2f} MB each"
        print(f"\n{heading}\n\n{table(results[name])}", end="", flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
