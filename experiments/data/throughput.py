"""Times reading, decoding and augmenting of single images on one core, beside plain Pillow.

    python experiments/data/throughput.py --data-dir DIR [--out FILE]

DIR holds cifar10 and imagenet2012 as prepared by TensorFlow Datasets with
file_format="array_record". Every task handles the same images; the tasks of a table take turns in
each repetition, and the shortest time of each counts. Times are processor time of this one thread,
so that they hold for one core even where others are busy. Prints a table for each section and
writes all times as JSON with --out.
"""

import argparse
import functools
import io
import json
import pathlib
import statistics
import tempfile
import time

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from ml_collections import config_dict
from PIL import Image

from snnvit_jax.common import markdown
from snnvit_jax.common.arguments import output_file, whole
from snnvit_jax.data import sources
from snnvit_jax.data.augment import randaugment, transforms
from snnvit_jax.data.augment.pipeline import create_augment, create_preprocess
from snnvit_jax.data.decode import decode_image
from snnvit_jax.data.sources.records import Records

COMMON = {
    "crop_padding": 0,
    "flip": True,
    "crop_fraction": 1.0,
    "random_resized_crop": True,
    "crop_scale": (1.0, 1.0),
    "erasing_probability": 0.25,
    "erasing_fill": "zero",
    "randaugment": {"magnitude": 9.0, "probability": 0.5},
}
# As Spikformer (Zhou et al., ICLR 2023) was trained.
RECIPES = {
    "imagenet2012": {
        "image_size": 224,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "crop_ratio": (3 / 4, 4 / 3),
        "randaugment": {"num_ops": 2, "magnitude_std": 0.5, "operations": "all"},
    },
    "cifar10": {
        "image_size": 32,
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2470, 0.2435, 0.2616),
        "crop_ratio": (1.0, 1.0),
        "randaugment": {"num_ops": 1, "magnitude_std": 0.4, "operations": "cifar"},
    },
}


def recipe(name, **changes):
    """Settings of the data of one published recipe."""
    settings = config_dict.ConfigDict(COMMON)
    with settings.unlocked():
        settings.update(RECIPES[name] | changes)
    return settings


def measure(tasks, count, repetitions):
    """Returns {task: [seconds of processor time for an image]}, after one warm-up each.

    Args:
      tasks: {name: function of the index of an image}.
      count: number of images.
      repetitions: of every task over all images.
    """
    seconds = {name: [] for name in tasks}
    for repetition in range(repetitions + 1):
        for name, task in tasks.items():
            start = time.thread_time()
            for index in range(count):
                task(index)
            if repetition:
                seconds[name].append((time.thread_time() - start) / count)
    return seconds


def table(seconds, reference):
    """Returns a Markdown table: shortest times, and their ratio to a reference task's."""
    base = min(seconds[reference])
    rows = []
    for name, values in seconds.items():
        best = min(values)
        rows.append([name, f"{best * 1e3:.3f} ms", f"{1 / best:,.0f}", f"{best / base:.2f}"])
    return markdown.table(["", "time for an image", "images per second", "ratio"], rows)


def pillow_load(data):
    """The least that Pillow can be asked for: the pixels, in its own memory."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()


def pillow_array(data):
    """The pixels as an array of RGB, as loaders based on Pillow get them."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def stages(settings, images):
    """{name: function of an index} for every single transform of a recipe."""
    augment = create_augment(settings, 3)
    size = augment.preprocess.size
    cropped = [transforms.resize(image, size) for image in images]
    rng = np.random.default_rng(0)
    return {
        "crop and resize": lambda i: transforms.random_resized_crop(
            images[i], size, *augment.resized_crop, rng
        ),
        "flip": lambda i: transforms.random_flip(cropped[i], rng),
        "RandAugment": lambda i: randaugment.rand_augment(cropped[i], augment.randaugment, rng),
        "what to erase": lambda i: transforms.random_rectangle(size, 0.25, rng),
    }


def augmented(examples, settings):
    """Function of an index: read, decode and augment, with a generator of its own."""
    augment = create_augment(settings, 3)
    return lambda i: augment(examples[i], np.random.default_rng((0, 0, i, 0)))


def common_tasks(name, source, blobs):
    """Tasks that both data sets share: {name: function of an index}."""
    settings, examples = recipe(name), source.examples
    preprocess = create_preprocess(settings, 3)
    return {
        "plain Pillow: open and load": lambda i: pillow_load(blobs[i]),
        "plain Pillow: to an array of RGB": lambda i: pillow_array(blobs[i]),
        "decode": lambda i: decode_image(blobs[i], i),
        "read and decode": lambda i: examples[i],
        "read, decode, evaluation": lambda i: preprocess(examples[i]),
        "read, decode, published augmentation": augmented(examples, settings),
    }


def encoded(source, count):
    """Undecoded bytes of the first images."""
    return [source.examples.encoded(index)[0] for index in range(count)]


def imagenet(options):
    """Returns {table: (seconds, reference)} for JPEGs of ImageNet."""
    source = sources.load("imagenet2012", "train", options.data_dir)
    count = len(source)
    blobs = encoded(source, count)
    images = [decode_image(data, "") for data in blobs]
    pixels = statistics.mean(image.shape[0] * image.shape[1] for image in images)
    size = statistics.mean(map(len, blobs))
    title = f"ImageNet: {count} JPEGs, on average {size / 1e3:.0f} kB and {pixels / 1e6:.2f} MP"
    tasks = common_tasks("imagenet2012", source, blobs)
    usual = recipe("imagenet2012", crop_scale=(0.08, 1.0), erasing_probability=0.0)
    usual.randaugment.num_ops = 0
    tasks["read, decode, crop of area 0.08 to 1, flip"] = augmented(source.examples, usual)
    parts = stages(recipe("imagenet2012"), images)
    run = functools.partial(measure, count=count, repetitions=options.repetitions)
    return {
        title: (run(tasks), "plain Pillow: open and load"),
        "Each transform of the ImageNet recipe at 224x224": (run(parts), "crop and resize"),
    }


def cifar(options, count=2000):
    """Returns {table: (seconds, reference)} for images of CIFAR-10."""
    source = sources.load("cifar10", f"train[:{count}]", options.data_dir)
    blobs = encoded(source, count)
    examples = list(source.examples)
    tasks = common_tasks("cifar10", source, blobs)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "cifar10.npz"
        np.savez(
            path,
            images=np.stack([example["image"] for example in examples]),
            labels=np.array([example["label"] for example in examples]),
        )
        archive = sources.load("archive", "train", path)
        tasks["read from an archive"] = lambda i: archive.examples[i]
        tasks["read from an archive, published augmentation"] = augmented(
            archive.examples, recipe("cifar10")
        )
        tasks["published augmentation alone"] = augmented(examples, recipe("cifar10"))
        run = functools.partial(measure, count=count, repetitions=options.repetitions)
        parts = stages(recipe("cifar10"), [example["image"] for example in examples])
        return {
            f"CIFAR-10: {count} PNGs": (run(tasks), "plain Pillow: open and load"),
            "Each transform of the CIFAR recipe": (run(parts), "RandAugment"),
        }


def records(options, count=2000):
    """Returns {table: (seconds, reference)} for undecoded records of CIFAR-10 in random order."""
    builder = tfds.builder("cifar10", data_dir=options.data_dir, file_format="array_record")
    files = builder.info.splits["train"].file_instructions
    ours = Records((file.filename, file.skip, file.take) for file in files)
    own = ArrayRecordDataSource(files)
    order = np.random.default_rng(0).permutation(len(ours))[:count].tolist()
    tasks = {
        "array_record's own data source": lambda i: own[order[i]],
        "read": lambda i: ours[order[i]],
    }
    seconds = measure(tasks, count, options.repetitions)
    return {"Reading one record of CIFAR-10": (seconds, "array_record's own data source")}


# A section is a function of the options that returns {title: ({task: [seconds]}, reference)}.
SECTIONS = {"imagenet": imagenet, "cifar": cifar, "records": records}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--repetitions", type=whole(1), default=5)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--out", type=output_file)
    options = parser.parse_args()
    results = {}
    for section in options.sections:
        for title, (seconds, reference) in SECTIONS[section](options).items():
            print(f"\n{title}\n\n{table(seconds, reference)}", end="", flush=True)
            results[title] = seconds
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
