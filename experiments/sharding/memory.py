"""Memory and traffic of a training step in each layout: python memory.py [OUT].

Compiles the step on eight CPU devices for a network whose weights outweigh its activations, and
prints what a device holds, works with and sends, in MB. Nothing is run. With OUT also writes
OUT/memory.json.
"""

import argparse
import json
import os

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
)

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

import snnvit_jax as snn
from snnvit_jax import training
from snnvit_jax.common import markdown
from snnvit_jax.common.arguments import output_folder
from snnvit_jax.distributed.mesh import create_mesh
from snnvit_jax.distributed.sharding import SHARDINGS, Placement
from snnvit_jax.models import family_of
from snnvit_jax.runs import config as config_lib
from snnvit_jax.training import optimizer
from snnvit_jax.xla.collectives import KINDS, collectives

NAME = "spikformer_4_384"
RULES = family_of(NAME).tensor_rules
BATCH, IMAGE_SIZE, SIZES = 64, 16, {"embed_dim": 256, "num_heads": 8, "depth": 4}


def measure(sharding):
    """Returns {"held", "worked_with", kind of collective: sent} of one device, in MB.

    Args:
      sharding: a key of `SHARDINGS`.
    """
    rules = family_of("spikformer_4_384").tensor_rules
    model_devices = 2 if SHARDINGS[sharding].uses_model else 1
    placement = Placement(create_mesh({"data": -1, "model": model_devices}), sharding, rules)
    settings = config_lib.default_config().optimizer
    rate = optimizer.learning_rate_schedule(settings, 10, 10.0)
    procedure = training.Procedure(
        model=snn.create_model(NAME, 10, IMAGE_SIZE, 2, **SIZES),
        optimizer=optimizer.create_optimizer(settings, rate),
        placement=placement,
    )
    step = training.train_step.lower(*shapes(procedure), procedure=procedure).compile()
    memory, sent = step.memory_analysis(), collectives(step.as_text())
    found = {
        "held": memory.argument_size_in_bytes,
        "worked_with": memory.temp_size_in_bytes,
        **{kind: sum(c.bytes for c in sent if c.kind == kind) for kind in KINDS},
    }
    return {name: round(size / 1e6, 1) for name, size in found.items()}


def shapes(procedure):
    """Returns (state, batch) as shapes, placed on the mesh."""
    image_shape, placement = (IMAGE_SIZE, IMAGE_SIZE, 3), procedure.placement
    state = jax.eval_shape(
        lambda key: training.create_state(procedure, key, image_shape), jax.random.key(0)
    )
    state = jax.tree.map(_placed, state, placement.shardings(state))
    batch = {
        "image": jax.ShapeDtypeStruct((BATCH, *image_shape), jnp.float32),
        "label": jax.ShapeDtypeStruct((BATCH,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((BATCH,), bool),
    }
    over_data = NamedSharding(placement.mesh, PartitionSpec("data"))
    return state, {name: _placed(leaf, over_data) for name, leaf in batch.items()}


def _placed(leaf, sharding):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=output_folder, nargs="?", help="for memory.json")
    out = parser.parse_args().out
    found = {sharding: measure(sharding) for sharding in SHARDINGS}
    head = ["MB of one device", *next(iter(found.values()))]
    rows = [[name, *values.values()] for name, values in found.items()]
    print(markdown.table(head, rows), end="")
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "memory.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
