"""Run by test_families_on_devices.py with eight devices: gradients of families that are divided.

Everything is in float64, where a sum in another order moves no membrane potential across the
threshold. Writes FOLDER/FAMILY.npz, and prints what a step gathers as JSON on the last line.
"""

import functools
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from conftest import _lively_variables
from eight_devices import gathered
from flax import traverse_util

import snnvit_jax as snn
from snnvit_jax.distributed.mesh import create_mesh
from snnvit_jax.distributed.sharding import Placement, shard_batch
from snnvit_jax.models import FAMILIES
from snnvit_jax.xla.collectives import collectives

# Family -> (model, a form of it that two devices divide).
SMALL = {
    "qkformer": (
        "qkformer_4_384",
        {"embed_dim": 64, "num_heads": 2, "depth": 3, "mlp_ratio": 2.0, "image_size": 8},
    ),
    "metaspikeformer": (
        "metaspikeformer_8_384_imagenet",
        {
            **{"embed_dim": (8, 16, 32, 32), "num_heads": 2, "depth": (1, 1), "mlp_ratio": 2.0},
            "image_size": 32,  # of 16 a token would be left, and gradients explode
        },
    ),
    "spikingresformer": (
        "spikingresformer_cifar",
        {
            **{"embed_dim": (8, 16, 16), "num_heads": (1, 2, 2), "depth": (1, 1, 1)},
            **{"group_size": 8, "mlp_ratio": 2.0, "image_size": 8},
        },
    ),
}


def setting_of(family):
    """(model, float64 variables that make every layer fire, a batch) of a family."""
    name, sizes = SMALL[family]
    model = snn.create_model(name, 3, time_steps=2, dtype=jnp.float64, **sizes)
    variables = jax.tree.map(lambda x: np.asarray(x, np.float64), _lively_variables(model))
    rng, (height, width) = np.random.default_rng(0), model.config.image_size
    images = rng.normal(size=(16, height, width, 3))
    return model, variables, {"image": images, "label": rng.integers(0, 3, 16)}


@functools.partial(jax.jit, static_argnames=("model", "placement"))
def gradients(params, stats, batch, *, model, placement):
    """(loss, gradients) of a training step, with weights gathered and kept as it does."""

    def loss_fn(params):
        variables = {"params": placement.gather(params), "batch_stats": stats}
        logits, _ = model.apply(variables, batch["image"], train=True, mutable=["batch_stats"])
        log_probabilities = jax.nn.log_softmax(logits)
        return -jnp.mean(jnp.take_along_axis(log_probabilities, batch["label"][:, None], 1))

    with placement.in_view():
        loss, found = jax.value_and_grad(loss_fn)(params)
    return loss, placement.keep(found)


def flat(loss, found):
    """{name: array} of a result."""
    return {"loss": loss, **traverse_util.flatten_dict(jax.device_get(found), sep="/")}


def main(folder):
    """Divides every family in both ways."""
    told, mesh = {}, create_mesh({"data": 4, "model": 2})
    for family in SMALL:
        model, variables, batch = setting_of(family)
        placement = Placement(mesh, "fsdp_tensor", FAMILIES[family].tensor_rules)
        placed = jax.device_put(variables, placement.shardings(variables))
        arguments = (placed["params"], placed["batch_stats"], shard_batch(batch, mesh))
        step = gradients.lower(*arguments, model=model, placement=placement).compile()
        np.savez(pathlib.Path(folder) / f"{family}.npz", **flat(*step(*arguments)))
        told[family] = {
            "gathered": gathered(placement, variables["params"]),
            "collectives": [(c.kind, c.shape) for c in collectives(step.as_text())],
        }
    print(json.dumps(told))


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(*sys.argv[1:])
