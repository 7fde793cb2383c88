"""What a device's memory and matrix units reach, and how much of it this project's neurons use.

    python experiments/benchmarks/roofline.py OUT.json [--megabytes=1024] [--dtype=bfloat16]

Measures the rate of copying and that of a matrix product; then neurons alone, and with the
normalisation and pooling around them, against the fewest bytes that they must move. From the two
rates follow the least times of the training steps that peers.py measures on a GPU: their
arithmetic, and what the backward pass needs of the forward pass, written and read once. With
--copy-rate and --matrix-rate, those of a device that is not at hand.
"""

import argparse
import json
import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import tqdm
from peers import CASES

import snnvit_jax as snn
from snnvit_jax import training
from snnvit_jax.common import markdown
from snnvit_jax.common.arguments import number, output_file, whole
from snnvit_jax.layers import BatchNorm, max_pool
from snnvit_jax.neurons import LIF
from snnvit_jax.signals import Signal
from snnvit_jax.xla import backends
from snnvit_jax.xla.traced import kept_bytes, traced_flops, tree_bytes

T, SIDE, CHANNELS = 4, 32, 192  # of the third stage of spikformer_4_384


class Stage(nn.Module):
    """Normalisation, neurons and perhaps pooling, as the patch embedding has them."""

    pool: bool

    @nn.compact
    def __call__(self, x):  # B T H W C
        """Returns spikes [B, T, H, W, C], pooled or not."""
        x = BatchNorm(name="bn")(Signal.of(x), True)
        x = LIF(name="lif")(x)
        return (x.map(max_pool) if self.pool else x).values


def kernels(megabytes, dtype):
    """Returns {name: (function, its arguments, fewest bytes that it moves)}."""
    size = int(megabytes * 1e6) // jnp.dtype(dtype).itemsize
    B = max(1, size // (T * SIDE * SIDE * CHANNELS))
    x = jax.random.normal(jax.random.key(0), (B, T, SIDE, SIDE, CHANNELS), dtype)
    once = tree_bytes(x)
    found = {"copy": (jnp.negative, (x,), 2 * once)}
    for name, module in {
        "LIF": LIF(),
        "BatchNorm + LIF": Stage(pool=False),
        "BatchNorm + LIF + max-pooling": Stage(pool=True),
    }.items():
        variables = module.init(jax.random.key(0), x[:1])
        reads = 1 if name == "LIF" else 2  # statistics have to be known before they are used
        apply = _apply(module, variables)
        spikes = jax.eval_shape(apply, x)
        out = tree_bytes(spikes)
        found[f"{name}, forward"] = (apply, (x,), reads * once + out)
        gradient = jnp.ones(spikes.shape, spikes.dtype)
        backward = _backward(apply)
        found[f"{name}, backward"] = (backward, (x, gradient), reads * (once + out) + once)
    return found


def _apply(module, variables):
    return lambda x: module.apply(variables, x, mutable=["batch_stats"])[0]


def _backward(function):
    """The gradient with respect to the input; what the forward pass returns is not written."""
    return lambda x, gradient: jax.vjp(function, x)[1](gradient)[0]


def seconds(function, arguments, repetitions=9, calls=5):
    """Returns the median time of a call, after one that compiles."""
    function = backends.jit(function)
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        jax.block_until_ready([function(*arguments) for _ in range(calls)])
        times.append((time.perf_counter() - start) / calls)
    return statistics.median(times)


def measure(megabytes, dtype, side):
    """Returns ({name: {"seconds", "bytes"}}, FLOP/s of a product of square matrices)."""
    found = {}
    for name, (function, arguments, least) in tqdm.tqdm(kernels(megabytes, dtype).items()):
        found[name] = {"seconds": seconds(function, arguments), "bytes": least}
    x = jax.random.normal(jax.random.key(0), (side, side), dtype)
    return found, 2 * side**3 / seconds(jnp.matmul, (x, x))


def least_times(case, copy_rate, matrix_rate):
    """Returns what a training step of a case must at least do, and how long that takes."""
    model = snn.create_model(
        case.model, 10, case.image_size, case.time_steps, dtype=jnp.dtype(case.dtype)
    )
    procedure = training.Procedure(model, optax.adamw(1e-4))
    shape = (case.image_size, case.image_size, 3)
    state = jax.eval_shape(
        lambda key: training.create_state(procedure, key, shape), jax.random.key(0)
    )
    images = jax.ShapeDtypeStruct((case.batch_size, *shape), jnp.float32)
    batch = {"image": images, "label": jax.ShapeDtypeStruct((case.batch_size,), jnp.int32)}
    step = jax.jit(training.train_step.__wrapped__, static_argnames="procedure")

    def logits(params, batch_stats, images):
        variables = {"params": params, "batch_stats": batch_stats}
        return model.apply(variables, images, train=True, mutable=["batch_stats"])

    kept = kept_bytes(logits, state.params, state.batch_stats, images)
    flops = traced_flops(step.trace(state, batch, procedure=procedure))
    moved = 2 * kept + 2 * tree_bytes(state)
    return {
        **{"case": case.name, "flops": flops, "least_bytes": moved},
        "seconds": {"arithmetic": flops / matrix_rate, "memory": moved / copy_rate},
    }


def table(result):
    """Returns the result as Markdown: the two rates, and tables of kernels and training steps."""
    copy = result["copy_rate"]
    rates = f"{result['device']}, {result['dtype']}: copies {copy / 1e9:.4g} GB/s, "
    rates += f"multiplies {result['matrix_rate'] / 1e12:.3g} TFLOP/s\n"
    kernels, steps = [], []
    for name, one in result["kernels"].items():
        rate = one["bytes"] / one["seconds"]
        cells = [name, f"{one['bytes'] / 1e6:.0f} MB", f"{one['seconds'] * 1e3:.3g} ms"]
        kernels.append([*cells, f"{rate / 1e9:.4g}", f"{rate / copy:.2f}"])
    for one in result["steps"]:
        times = [f"{value * 1e3:.3g} ms" for value in one["seconds"].values()]
        moved = f"{one['least_bytes'] / 1e9:.3g} GB"
        steps.append([one["case"], f"{one['flops'] / 1e12:.3g}", moved, *times])
    tables = (
        markdown.table(["", "least moved", "time", "GB/s", "of copying"], kernels),
        markdown.table(["training step", "TFLOP", "least moved", "arithmetic", "memory"], steps),
    )
    return "\n".join([rates, *tables])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=output_file)
    parser.add_argument(
        "--megabytes", type=number(above=0), default=1024, help="of the neurons' current"
    )
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--side", type=whole(1), default=8192, help="of the matrices")
    parser.add_argument("--copy-rate", type=number(above=0), help="bytes/s, for the least times")
    parser.add_argument("--matrix-rate", type=number(above=0), help="FLOP/s, for the least times")
    options = parser.parse_args()
    found, matrix_rate = measure(options.megabytes, options.dtype, options.side)
    copy_rate = found["copy"]["bytes"] / found["copy"]["seconds"]
    rates = options.copy_rate or copy_rate, options.matrix_rate or matrix_rate
    result = {
        **{"device": jax.devices()[0].device_kind, "jax": jax.__version__, "dtype": options.dtype},
        **{"copy_rate": copy_rate, "matrix_rate": matrix_rate, "kernels": found},
        **{"rates_of_steps": rates, "steps": [least_times(case, *rates) for case in CASES["gpu"]]},
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result), end="")


if __name__ == "__main__":
    main()
