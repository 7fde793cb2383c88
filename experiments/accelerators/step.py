"""Compiles a training step, or an evaluation, for a device that need not exist.

    JAX_PLATFORMS=cpu python experiments/accelerators/step.py h100 spikformer_4_384 32 256 OUT
    JAX_PLATFORMS=cpu python experiments/accelerators/step.py v5e spikformer_4_384 32 128 OUT

writes OUT.txt, the compiled program, and OUT.json, what it is and what it reserves. For a GPU
jax-cuda12-plugin and the nvidia packages of the README must be installed, for a TPU libtpu; neither
needs a driver. JAX_PLATFORMS=cpu must be set, or the plugin looks for one.
"""

import argparse
import json
import os
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

import snnvit_jax as snn
from snnvit_jax import recipes, training
from snnvit_jax.common.arguments import output_file, whole
from snnvit_jax.distributed.sharding import Placement
from snnvit_jax.runs import config as config_lib
from snnvit_jax.training import optimizer
from snnvit_jax.training.mixing import Mixing
from snnvit_jax.training.objective import Objective
from snnvit_jax.training.shapes import step_shapes
from snnvit_jax.xla import kernels
from snnvit_jax.xla.traced import traced_flops

FOLDER = pathlib.Path(__file__).parent


class Target(NamedTuple):
    """A device to compile for; rates are those of its maker's document.

    Attributes:
      platform: "cuda" or "tpu".
      topology: as the platform names it.
      flops: dense bfloat16 operations in a second.
      memory_rate: bytes in a second.
      clock: of a TPU's cycles, Hz.
    """

    platform: str
    topology: str
    flops: float
    memory_rate: float
    clock: float | None = None


TARGETS = {
    # NVIDIA H100 SXM data sheet.
    "h100": Target("cuda", "1x1x1", 989.4e12, 3.35e12),
    # https://cloud.google.com/tpu/docs/v5e, /v5p, /v6e; the least topologies that exist.
    "v5e": Target("tpu", "v5e:2x4", 197e12, 819e9, 1.5e9),
    "v5p": Target("tpu", "v5p:2x2x1", 459e12, 2765e9, 1.75e9),
    "v6e": Target("tpu", "v6e:2x4", 918e12, 1638e9, 1.75e9),
}


def devices(target):
    """Returns the devices of a target, as descriptions that programs can be compiled for."""
    if target.platform == "tpu":
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # it is not asked which TPU this is
        return topologies.get_topology_desc(target.topology, "tpu").devices
    config = (FOLDER / "h100.txtpb").read_text()
    options = {"target_config": config, "topology": target.topology}
    return topologies.get_topology_desc("h100", "cuda", **options).devices


def procedure(model, image_size, batch_size, mesh=None, kernels=None, time_steps=4, **sizes):
    """Returns Spikformer's published recipe for a model.

    Args:
      model: its name.
      image_size: pixels; from 128 on, 1000 classes and the recipe for ImageNet.
      batch_size: over all devices; the recipe's durations are epochs.
      mesh: the devices; None leaves the placement open.
      kernels: see `training.Procedure`.
      time_steps: T.
      **sizes: that differ from the published ones, or from bfloat16.
    """
    large = image_size >= 128
    config = config_lib.default_config()
    if large:
        recipes.published_imagenet(config, "spikformer_8_768_imagenet")
    else:
        recipes.published_cifar(config, "spikformer_4_384")
    steps_per_epoch = (1_281_167 if large else 50_000) / batch_size
    rate = optimizer.learning_rate_schedule(config.optimizer, config.epochs, steps_per_epoch)
    classes, sizes = 1000 if large else 10, {"dtype": jnp.bfloat16, **sizes}
    return training.Procedure(
        model=snn.create_model(model, classes, image_size, time_steps, **sizes),
        optimizer=optimizer.create_optimizer(config.optimizer, rate),
        objective=Objective(0.1, 1.0, 2.0, start_step=1000, freeze_step=10_000),
        mixing=Mixing(config.mixing.mixup_alpha, config.mixing.cutmix_alpha),
        placement=Placement(mesh),
        **({} if kernels is None else {"kernels": kernels}),
    )


def traced(mode, state, batch, step):
    """Returns the traced program of a training step ("train") or an evaluation ("eval")."""
    # Without the compiler options of this machine's backend.
    if mode == "train":
        options = {"static_argnames": "procedure", "donate_argnums": 0}
        return jax.jit(training.train_step.__wrapped__, **options).trace(
            state, batch, procedure=step
        )

    def logits(variables, images):
        with kernels.kernels(step.kernels):
            return step.model.apply(variables, images)

    return jax.jit(logits).trace(state.variables, batch["image"])


def compile_traced(program, platform):
    """Returns (text of a traced program, compiled for a platform; its compilation and memory)."""
    start = time.time()
    compiled = program.lower(lowering_platforms=(platform,)).compile()
    memory = compiled.memory_analysis()
    names = ("argument_size_in_bytes", "temp_size_in_bytes", "peak_memory_in_bytes")
    facts = {"jax": jax.__version__, "compile_seconds": time.time() - start}
    return compiled.as_text(), facts | {name: getattr(memory, name) for name in names}


def compile_step(target, model, image_size, batch_size, mode="train", kernels=None, **sizes):
    """Returns (text of the compiled program, facts about it).

    Args:
      target: a key of `TARGETS`.
      model: its name.
      image_size: pixels.
      batch_size: of one device.
      mode: "train" or "eval".
      kernels: see `training.Procedure`.
      **sizes: that differ from the published ones.
    """
    mesh = Mesh(np.array(devices(TARGETS[target])), ("data",))
    total = batch_size * mesh.size
    step = procedure(model, image_size, total, mesh, kernels, **sizes)
    program = traced(mode, *step_shapes(step, total, mesh), step)
    one = traced("eval", *step_shapes(step, batch_size), step)  # a device's part of the arithmetic
    text, compilation = compile_traced(program, TARGETS[target].platform)
    facts = {
        **{"target": target, "model": model, "image_size": image_size, "mode": mode},
        **{"batch_size": batch_size, "devices": mesh.size},
        "procedure_kernels": kernels,
        # Of a forward pass once, backward twice: the convention of model FLOPs utilisation.
        "model_flops": traced_flops(one) * (3 if mode == "train" else 1),
    }
    return text, facts | compilation


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("model")
    parser.add_argument("image_size", type=whole(1))
    parser.add_argument("batch_size", type=whole(1), help="of one device")
    parser.add_argument("out", type=output_file)
    parser.add_argument("--mode", choices=("train", "eval"), default="train")
    parser.add_argument("--kernels", choices=("gpu", "tpu"), help="see training.Procedure")
    parser.add_argument("--depth", type=whole(1), help="of the model, if not the published one")
    options = parser.parse_args()
    sizes = {} if options.depth is None else {"depth": options.depth}
    text, facts = compile_step(
        *(options.target, options.model, options.image_size, options.batch_size, options.mode),
        options.kernels,
        **sizes,
    )
    options.out.with_suffix(".txt").write_text(text)
    options.out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
