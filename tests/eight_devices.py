"""Run by test_sharding.py in a process of its own: the number of devices is set at start."""

import json
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import optax

import snnvit_jax as snn
from snnvit_jax import metrics, sharding, training


def main():
    model = snn.create_model(
        "spikformer_2_384", 4, image_size=16, time_steps=4, embed_dim=32, num_heads=2
    )
    procedure = training.Procedure(model, optax.sgd(1e-2))
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.normal(size=(16, 16, 16, 3)).astype(np.float32),
        "label": np.arange(16) % 4,
    }
    found = {}
    for count in (1, 8):
        mesh = sharding.create_mesh({"data": -1}, jax.devices()[:count])
        state = training.create_state(procedure, jax.random.key(0), (16, 16, 3))
        state, placed = sharding.replicate(state, mesh), sharding.shard_batch(batch, mesh)
        text = training.train_step.lower(state, placed, procedure=procedure).compile().as_text()
        losses = []
        for _ in range(3):
            state, seen = training.train_step(state, placed, procedure=procedure)
            losses.append(float(metrics.means(jax.device_get(seen))["loss"]))
        total = float(sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(state.params)))
        found[count] = {
            "losses": losses,
            "parameters": total,
            "all_gathers": text.count(" all-gather("),
            "all_reduces": text.count(" all-reduce("),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
