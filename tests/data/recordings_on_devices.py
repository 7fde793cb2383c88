"""Run by test_events_devices.py with eight devices: a training step on recordings, divided or not.

In float64, where a sum in another order moves no membrane potential across the threshold. Prints
what it saw as JSON on the last line.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
from conftest import _lively_variables

import snnvit_jax as snn
from snnvit_jax import training
from snnvit_jax.distributed.mesh import create_mesh
from snnvit_jax.distributed.sharding import Placement, shard_batch
from snnvit_jax.models import family_of
from snnvit_jax.training.mixing import Mixing

NAME = "spikformer_2_256_dvs"
SMALL = {"embed_dim": 32, "num_heads": 2, "depth": 1, "mlp_ratio": 2.0, "image_size": 16}
T, BATCH = 3, 16
LAYOUTS = {"one": None, "fsdp_tensor": {"data": 4, "model": 2}}


def recordings():
    """Counts of events [B, T, H, W, C] whose frames differ, and labels."""
    rng = np.random.default_rng(0)
    rates = rng.uniform(0.1, 2, (BATCH, T, 1, 1, 1))
    counts = rng.poisson(rates, (BATCH, T, 16, 16, 2)).astype(np.float64)
    return {"image": counts, "label": rng.integers(0, 3, BATCH)}


def stepped(model, variables, layout):
    """(state after one step of plain descent, loss), on the host."""
    sizes, batch, placement = LAYOUTS[layout], recordings(), Placement()
    if sizes is not None:
        placement = Placement(create_mesh(sizes), layout, family_of(NAME).tensor_rules)
        variables = jax.device_put(variables, placement.shardings(variables))
        batch = shard_batch(batch, placement.mesh)
    procedure = training.Procedure(
        model,
        optax.sgd(1.0),
        mixing=Mixing(mixup_alpha=0.5),
        average_decay=0.5,
        placement=placement,
    )
    state = training.state_from_variables(procedure, jax.tree.map(jnp.array, variables))
    state, seen = training.train_step(state, batch, procedure=procedure)
    total, count = jax.device_get(seen["loss"])
    return jax.device_get((state.params, state.batch_stats, state.average)), total / count


def main():
    """Prints the losses, and how far each array moved and lies from that of one device."""
    model = snn.create_model(
        NAME, 3, time_steps=T, dtype=jnp.float64, pool=(True, True, False, False), **SMALL
    )
    variables = jax.tree.map(lambda x: np.asarray(x, np.float64), _lively_variables(model, 2))
    one, loss = stepped(model, variables, "one")
    before = variables["params"], variables["batch_stats"], variables
    told = {"one": {"loss": float(loss), "moved": distances(one, before)}}
    found, loss = stepped(model, variables, "fsdp_tensor")
    told["eight"] = {"loss": float(loss), "away": distances(found, one)}
    print(json.dumps(told))


def distances(a, b):
    """{name: largest difference} of two trees."""
    apart = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), a, b)
    return {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(apart)}


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
