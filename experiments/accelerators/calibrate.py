"""Compiles programs whose time on an H100 is published, and sets it beside what is estimated.

    export JAX_PLATFORMS=cpu XLA_FLAGS=--xla_gpu_enable_triton_gemm=false
    python experiments/accelerators/calibrate.py

A matrix product, a copy, and training steps of ResNet-50 and ViT-B/16 are compiled and counted as
this project's steps are. None of them runs: the times that others measured are quoted. families.py
comes first; how far the training steps lie above their estimates gives the images a second that an
H100 might train of Spikformer, themselves an estimate. calibration.json and the tables of the
README are written from the same numbers.
"""

import argparse
import functools
import json
import os
import pathlib
from importlib import metadata
from typing import Any, NamedTuple

import count
import families
import hlo
import jax
import jax.numpy as jnp
import networks
import optax
import published
import step
from jax.sharding import SingleDeviceSharding

from snnvit_jax.common import markdown
from snnvit_jax.xla.traced import traced_flops

RESULTS = pathlib.Path(__file__).parent / "calibration.json"
TARGET = "h100"
PACKAGES = ("jax", "flax", "optax", "jax-cuda12-plugin", "nvidia-cudnn-cu12", "nvidia-cublas-cu12")


class Case(NamedTuple):
    """A program to compile.

    Attributes:
      function: of the arguments; jitted here, its first argument donated if it is a state.
      arguments: shapes.
      forward: (function, its arguments), a third of the arithmetic; None: all is counted.
      published: a `published.Published`.
    """

    function: Any
    arguments: tuple
    forward: tuple | None
    published: published.Published


def train_step(model, optimizer, state, images, labels):
    """Returns the state after a training step; a state is (parameters, moments, statistics)."""
    params, moments, others = state

    def loss(params):
        logits, updated = model.apply({"params": params, **others}, images, mutable=[*others])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
        return losses.mean(), updated

    gradient, others = jax.grad(loss, has_aux=True)(params)
    updates, moments = optimizer.update(gradient, moments, params)
    return optax.apply_updates(params, updates), moments, others


def training(model, optimizer, batch_size, measured):
    """Returns the `Case` of a training step on images of 224x224."""
    images = jax.ShapeDtypeStruct((batch_size, 224, 224, 3), jnp.bfloat16)
    labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    variables = dict(jax.eval_shape(model.init, jax.random.key(0), images))
    params = variables.pop("params")
    state = (params, jax.eval_shape(optimizer.init, params), variables)

    def logits(variables, images):
        return model.apply(variables, images, mutable=[*state[2]])[0]

    forward = (logits, ({"params": params, **variables}, images))
    function = functools.partial(train_step, model, optimizer)
    return Case(function, (state, images, labels), forward, measured)


def cases():
    """Returns {name: `Case`}."""
    square = jax.ShapeDtypeStruct((8192, 8192), jnp.bfloat16)
    array = jax.ShapeDtypeStruct((1 << 31,), jnp.bfloat16)
    copied = published.copy(2 * array.size * array.dtype.itemsize)
    resnet = networks.ResNet50(), optax.sgd(0.1, 0.9), published.RESNET50_BATCH
    vit = networks.ViTB16(), optax.adam(1e-3), published.VIT_BATCH
    return {
        "product, 8192 x 8192 x 8192": Case(jnp.matmul, (square, square), None, published.PRODUCT),
        "x + 1, 4.3 GB": Case(lambda x: x + 1, (array,), None, copied),
        "ResNet-50 v1.5, step of 256": training(*resnet, published.RESNET50),
        "ViT-B/16, step of 512": training(*vit, published.VIT),
    }


def calibrate(name, case):
    """Returns what is counted of a case, and what is published, a dictionary."""
    placed = SingleDeviceSharding(step.devices(step.TARGETS[TARGET])[0])
    arguments = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed), case.arguments
    )
    donated = () if case.forward is None else 0
    program = jax.jit(case.function, donate_argnums=donated).trace(*arguments)
    text, facts = step.compile_traced(program, step.TARGETS[TARGET].platform)
    function, shapes = case.forward or (case.function, case.arguments)
    flops = traced_flops(jax.jit(function).trace(*shapes))
    facts |= {"program": name, "target": TARGET, "model_flops": flops * (3 if case.forward else 1)}
    row = facts | count.totals(count.kernels(hlo.Program(text), False), facts)
    row |= {"published": case.published._asdict()}
    least = row["roofline_seconds"]
    ratios = (case.published.fastest / least, case.published.slowest / least)
    return row | {"training_step": case.forward is not None, "published_over_least": ratios}


def expected(rows, steps):
    """Returns what the training steps' ratios make of Spikformer's estimates, dictionaries."""
    ratios = [
        ratio for row in rows if row["training_step"] for ratio in row["published_over_least"]
    ]
    found = []
    for one in steps:
        if "error" not in one and one["model"].startswith("spikformer") and one["mode"] == "train":
            least = one["roofline_seconds"]
            rates = [one["batch_size"] / least / ratio for ratio in (max(ratios), min(ratios))]
            names = ("model", "batch_size", "procedure_kernels")
            found.append({name: one[name] for name in names})
            found[-1] |= {"least_seconds": least, "images_per_second": rates}
    return found


def calibration_table(rows):
    """Returns the table of estimates beside what is published."""
    head = ["", "kernels", "GB", "least ms (estimate)", "published ms", "published / least", "who"]
    lines = []
    for row in rows:
        measured = published.Published(**row["published"])
        times = [measured.fastest * 1e3, measured.slowest * 1e3]
        numbers = [f"{row['kernels']:,}", f"{row['bytes'] / 1e9:.1f}"]
        numbers += [f"{row['roofline_seconds'] * 1e3:.2f}", span(times, 2)]
        ratio = span(row["published_over_least"], 2)
        lines.append([row["program"], *numbers, ratio, f"[{measured.what}]({measured.source})"])
    return markdown.table(head, lines)


def span(values, digits):
    """Returns one number, or "low to high", as text."""
    low, high = (f"{value:,.{digits}f}" for value in sorted(values))
    return low if low == high else f"{low} to {high}"


def expected_table(rows):
    """Returns the table of what an H100 might train."""
    head = ["", "batch", "`kernels`", "least ms (estimate)", "images a second (estimate)"]
    lines = []
    for row in rows:
        size, kernels = row["batch_size"], row["procedure_kernels"] or "none"
        rates = [round(rate, -1) for rate in row["images_per_second"]]
        least = f"{row['least_seconds'] * 1e3:.1f}"
        lines.append([row["model"], size, kernels, least, span(rates, 0)])
    return markdown.table(head, lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.parse_args()
    flags = os.environ.get("XLA_FLAGS", "")
    if families.LARGE_FLAGS not in flags:
        parser.error(f"XLA_FLAGS={flags!r}: it must hold {families.LARGE_FLAGS}")
    rows = [calibrate(name, case) for name, case in cases().items()]
    steps = json.loads(families.RESULTS.read_text())
    result = {
        "command": "python experiments/accelerators/calibrate.py",
        "xla_flags": flags,
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "programs": rows,
        "expected": expected(rows, steps),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(calibration_table(rows), expected_table(result["expected"]), sep="\n")


if __name__ == "__main__":
    main()
