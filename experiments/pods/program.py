"""What one training step computes, keeps and sends: counted from its trace, or from compiling it.

Nothing is run and no weights exist: shapes are enough.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

import snnvit_jax as snn
from snnvit_jax import recipes, training
from snnvit_jax.distributed.sharding import Placement
from snnvit_jax.runs import config as config_lib
from snnvit_jax.training import optimizer
from snnvit_jax.training.mixing import Mixing
from snnvit_jax.training.objective import Objective
from snnvit_jax.training.shapes import step_shapes
from snnvit_jax.xla.collectives import collectives
from snnvit_jax.xla.traced import kept_bytes, traced_flops, tree_bytes

# Without the compiler options of this machine's backend.
STEP = jax.jit(training.train_step.__wrapped__, static_argnames="procedure", donate_argnums=0)


def procedure(batch_size, mesh=None, image_size=224, **sizes):
    """Returns the published ImageNet recipe for Spikformer-8-768, as a `training.Procedure`.

    Args:
      batch_size: over all devices; the recipe's durations are epochs.
      mesh: the devices; None leaves the placement open.
      image_size: pixels.
      **sizes: of another model, as `create_model` takes them.
    """
    config = config_lib.default_config()
    recipes.published_imagenet(config, "spikformer_8_768_imagenet")
    steps_per_epoch = 1_281_167 / batch_size
    rate = optimizer.learning_rate_schedule(config.optimizer, config.epochs, steps_per_epoch)
    return training.Procedure(
        model=snn.create_model(
            "spikformer_8_768_imagenet", 1000, image_size, 4, dtype=jnp.bfloat16, **sizes
        ),
        optimizer=optimizer.create_optimizer(config.optimizer, rate),
        objective=Objective(0.1, 1.0, 2.0, start_step=1000, freeze_step=10_000),
        mixing=Mixing(config.mixing.mixup_alpha, config.mixing.cutmix_alpha),
        placement=Placement(mesh),
    )


def count(batch_size, **sizes):
    """Counts a training step from its trace, without compiling.

    Args:
      batch_size: images of one device.
      **sizes: as for `procedure`.

    Returns:
      {"parameters": how many, "state_bytes": of parameters, moments and statistics,
      "flops": of convolutions and matrix products, forward and backward,
      "kept_bytes": of what the forward pass keeps for the backward pass,
      "collective_bytes": of gradients and batch statistics, which all devices add up}.
    """
    step = procedure(batch_size, **sizes)
    state, batch = step_shapes(step, batch_size)
    traced = STEP.trace(state, batch, procedure=step)
    channels = sum(leaf.size for leaf in jax.tree.leaves(state.batch_stats))
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "state_bytes": tree_bytes(state),
        "flops": traced_flops(traced),
        "kept_bytes": _kept_bytes(step, state, batch),
        # Mean and variance of each normalisation in float32, forward and, as gradients, backward.
        "collective_bytes": _gradient_bytes(state.params) + 2 * 4 * channels,
    }


def compile_for_tpu(topology, slices, batch_size, **sizes):
    """Compiles a training step for TPUs that need not exist (libtpu must be installed).

    Args:
      topology: of a slice, for example "v5e:2x4".
      slices: how many of them, joined by the data-centre network.
      batch_size: images of one device.
      **sizes: as for `procedure`.

    Returns:
      {"devices", "flops", "hbm_bytes", "argument_bytes", "temporary_bytes", "collectives"}, all of
      one device; the last as from `sent`.
    """
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    options = {"num_slices": slices} if slices > 1 else {}
    devices = topologies.get_topology_desc(topology, "tpu", **options).devices
    mesh = Mesh(np.array(devices), ("data",))
    step = procedure(batch_size * mesh.size, mesh, **sizes)
    state, batch = step_shapes(step, batch_size * mesh.size, mesh)
    traced = STEP.trace(state, batch, procedure=step)
    compiled = traced.lower(lowering_platforms=("tpu",)).compile()
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    return {
        "devices": mesh.size,
        "flops": cost["flops"],
        "hbm_bytes": cost["bytes accessed"],
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "collectives": sent(compiled.as_text()),
    }


def sent(text):
    """Returns {kind: {"arrays", "bytes"}} of a compiled program's collective operations.

    Args:
      text: of the program; bytes are those of the results on one device.
    """
    found = {}
    for one in collectives(text):
        entry = found.setdefault(one.kind, {"arrays": 0, "bytes": 0})
        entry["arrays"] += 1
        entry["bytes"] += one.bytes
    return found


def _gradient_bytes(params):
    """Bytes of the gradients as they leave the devices.

    The kernels' are added up over the devices in the type of the computation and widened after
    that; the head, normalisations and scores are computed in float32.
    """
    return sum(
        leaf.size * (4 if name == "head" or leaf.ndim < 2 else 2)
        for name, part in params.items()
        for leaf in jax.tree.leaves(part)
    )


def _kept_bytes(step, state, batch):
    def logits(params, batch_stats, images):
        variables = {"params": params, "batch_stats": batch_stats}
        return step.model.apply(variables, images, train=True, mutable=["batch_stats"])

    kept = kept_bytes(logits, state.params, state.batch_stats, batch["image"])
    return kept - tree_bytes(state.params)
