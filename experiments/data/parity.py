"""Compares the transforms with those of torchvision and timm, on real images.

    python experiments/data/parity.py --data-dir DIR

DIR holds imagenet2012 as prepared by TensorFlow Datasets with file_format="array_record". Needs
torch, torchvision and timm beside this project, which needs none of them itself. What is no matter
of chance must be equal pixel by pixel; what is drawn must have the same distribution, by the
two-sample Kolmogorov-Smirnov statistic beside its 5 % limit. Exits with 1 on any difference.
"""

import argparse
import math
import random
import sys

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment
from timm.data.random_erasing import RandomErasing
from torchvision import transforms as theirs
from torchvision.transforms import functional

from snnvit_jax.common.arguments import whole
from snnvit_jax.data import sources
from snnvit_jax.data.augment import transforms
from snnvit_jax.data.augment.pipeline import Preprocess
from snnvit_jax.data.augment.randaugment import OPERATIONS

SIZE = 64
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
BICUBIC = theirs.InterpolationMode.BICUBIC
FILL = (124, 116, 104)
INCREASING = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")


def evaluation(images):
    """Yields (what, ours, theirs) for resizing the shorter side and taking the middle."""
    for fraction in (1.0, 0.95, 0.875):
        preprocess = Preprocess((SIZE, SIZE), (0.0,), (1.0,), fraction)
        resize = theirs.Resize(math.floor(SIZE / fraction), interpolation=BICUBIC)
        peer = theirs.Compose([resize, theirs.CenterCrop(SIZE)])
        for index, image in enumerate(images):
            expected = np.asarray(peer(Image.fromarray(image)))
            yield f"evaluation, image {index}, {fraction=}", preprocess.fit(image), expected


def resized_crops(images):
    """Yields (what, ours, theirs) for cutting out one box and resizing it."""
    for index, image in enumerate(images):
        box = transforms.crop_box(*image.shape[:2], SCALE, RATIO, np.random.default_rng(index))
        expected = functional.resized_crop(Image.fromarray(image), *box, [SIZE, SIZE], BICUBIC)
        rng = np.random.default_rng(index)
        found = transforms.random_resized_crop(image, (SIZE, SIZE), SCALE, RATIO, rng)
        yield f"resized crop, image {index}", found, np.asarray(expected)


def operations(images, draws=12):
    """Yields (what, ours, theirs): sorted results of an operation with either sign."""
    for name, operation in OPERATIONS.items():
        peer_name = name + "Increasing" if name in INCREASING else name
        # At 10, timm asks Pillow to keep no bit, which it has come to refuse.
        for magnitude in (0, 3, 5.5, 9, 9.7, *([10] if name != "Posterize" else [])):
            hparams = {"img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}
            peer = auto_augment.AugmentOp(peer_name, prob=1.0, magnitude=magnitude, hparams=hparams)
            for index, image in enumerate(images):
                picture = Image.fromarray(image).resize((96, 80))
                found = [
                    operation(picture, magnitude / 10, np.random.default_rng(seed), FILL)
                    for seed in range(draws)
                ]
                expected = [peer(picture) for _ in range(draws)]
                both = ({np.asarray(x).tobytes() for x in side} for side in (found, expected))
                yield (f"{name}, image {index}, {magnitude=}", *map(sorted, both))


def boxes(count, height=200, width=300):
    """(ours, theirs): [count, 5] of top, left, height, width, area of random crops."""
    image, rng = Image.new("RGB", (width, height)), np.random.default_rng(0)
    found = [transforms.crop_box(height, width, SCALE, RATIO, rng) for _ in range(count)]
    draw = theirs.RandomResizedCrop.get_params
    expected = [draw(image, list(SCALE), list(RATIO)) for _ in range(count)]
    return with_area(found), with_area(expected)


def erased(count, size=64):
    """(ours, theirs): [count, 5] of top, left, height, width, area of erased rectangles."""
    rng, peer = np.random.default_rng(0), RandomErasing(probability=1.0, mode="const", device="cpu")
    found = [transforms.random_rectangle((size, size), 1.0, rng) for _ in range(count)]
    expected = [peer(torch.ones(1, size, size))[0].numpy() == 0 for _ in range(count)]
    return with_area(found), with_area(map(rectangle, expected))


def rectangle(gone):
    """(top, left, height, width) of what is True."""
    rows, cols = (np.flatnonzero(gone.any(axis)) for axis in (1, 0))
    return rows[0], cols[0], len(rows), len(cols)


def with_area(rectangles):
    """Rectangles with height x width as a fifth column."""
    array = np.array(list(rectangles), float)
    return np.column_stack([array, array[:, 2] * array[:, 3]])


def kolmogorov_smirnov(a, b):
    """Largest distance between two empirical distribution functions."""
    values = np.concatenate([a, b])
    shares = (np.searchsorted(np.sort(x), values, "right") / len(x) for x in (a, b))
    return float(np.abs(next(shares) - next(shares)).max())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--draws", type=whole(1), default=8000)
    options = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    examples = sources.load("imagenet2012", "train[:30]", options.data_dir).examples
    images = [example["image"] for example in examples]
    wrong = 0
    comparisons = (evaluation(images), resized_crops(images), operations(images[:6]))
    for name, cases in zip(
        ("evaluation", "resized crops", "RandAugment"), comparisons, strict=True
    ):
        results = [(what, np.array_equal(found, expected)) for what, found, expected in cases]
        differing = [what for what, equal in results if not equal]
        wrong += len(differing)
        print(f"{name}: {len(results) - len(differing)} of {len(results)} equal", *differing[:5])
    limit = 1.36 * math.sqrt(2 / options.draws)
    for name, draw in (("random resized crop", boxes), ("random erasing", erased)):
        ours, peers = draw(options.draws)
        distances = [kolmogorov_smirnov(*pair) for pair in zip(ours.T, peers.T, strict=True)]
        wrong += max(distances) > 1.5 * limit  # ten of them are looked at
        print(f"{name}: {np.round(distances, 4).tolist()}, limit {limit:.4f}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
