"""This project's side of peers.py."""

import json
import sys

import jax
import numpy as np
import optax
from serve import serve

import snnvit_jax as snn
from snnvit_jax import backends, compilation_cache, training


def main():
    compilation_cache.use()  # as the command line does
    arguments = json.loads(sys.argv[1])
    B = arguments["batch_size"]
    model = snn.create_model("spikformer_4_384", time_steps=arguments["time_steps"])
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.normal(size=(B, 32, 32, 3)).astype(np.float32),
        "label": rng.integers(0, 10, B),
    }
    procedure = training.Procedure(model, optax.adamw(1e-4))
    state = jax.jit(lambda key: training.create_state(procedure, key, (32, 32, 3)))(
        jax.random.key(0)
    )
    forward = backends.jit(model.apply)

    def evaluation():
        jax.block_until_ready(forward(state.variables, batch["image"]))

    def train():
        nonlocal state
        state, seen = training.train_step(state, batch, procedure=procedure)
        jax.block_until_ready((state, seen))

    serve(f"jax {jax.__version__}, {jax.devices()}", {"evaluation": evaluation, "training": train})


if __name__ == "__main__":
    main()
