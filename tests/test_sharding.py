import dataclasses
import json
import os
import shutil
import signal
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import parallel_run
import pytest
import two_processes
from eight_devices import LAYOUTS
from jax.sharding import PartitionSpec

import snnvit_jax as snn
from snnvit_jax import distributed, training
from snnvit_jax.checkpoints.checkpoints import Checkpoints
from snnvit_jax.distributed import sharding
from snnvit_jax.distributed.sharding import Placement
from snnvit_jax.models import family_of, parts
from snnvit_jax.models.spikformer import FAMILY
from snnvit_jax.models.spikformer.model import Block
from snnvit_jax.runs import initial, loop
from snnvit_jax.signals import Signal
from snnvit_jax.xla.collectives import Collective, collectives


def abstract(data, model=1):
    return jax.sharding.AbstractMesh((data, model), ("data", "model"))


@pytest.mark.parametrize(
    ("shape", "split", "spec"),
    [
        ((384, 1536), (None, "model"), ("data", "model")),
        ((1536, 384), ("model", None), ("model", "data")),
        ((1536, 383), ("model", None), ("model", None)),  # nothing else is divisible
        ((384,), ("model",), ("model",)),
        ((2048, 3), (), ("data",)),
        ((3, 3, 64, 128), (None, None, None, "model"), (None, None, "data", "model")),
        ((16, 16), (None, "model"), (None, "model")),  # too small
    ],
)
def test_fsdp_splits_what_tensor_parallelism_leaves(shape, split, spec):
    found = sharding.largest_axis(shape, abstract(4, 2), PartitionSpec(*split))
    assert found == PartitionSpec(*spec)


@pytest.mark.parametrize("name", ["spikformer_4_384", "spikformer_8_768_imagenet"])
def test_tensor_splits_heads_and_hidden_channels_and_nothing_else(name):
    model = snn.create_model(name, 10, depth=2)
    procedure = training.Procedure(model, optax.adam(1e-3), average_decay=0.9)
    shape = (*model.config.image_size, 3)
    state = jax.eval_shape(lambda: training.create_state(procedure, jax.random.key(0), shape))
    family = family_of(name)
    placement = Placement(abstract(4, 2), "tensor", family.tensor_rules)
    sharding.check_model(model.config, placement, family.divided)
    split = {}
    for path, place in jax.tree_util.tree_leaves_with_path(placement.shardings(state)):
        if place.spec != PartitionSpec():
            where = jax.tree_util.keystr(path, simple=True, separator="/")
            split.setdefault(where.split("/block_0/")[-1], []).append(place.spec)
    linear = "linear" if model.config.form.suffix == "linear" else "conv"
    first, second, channels = (
        PartitionSpec(None, "model"),
        PartitionSpec("model", None),
        PartitionSpec("model"),
    )
    wanted = {}
    for layer in ("attn/q", "attn/k", "attn/v", "mlp/fc1"):
        wanted[f"{layer}_{linear}/kernel"] = first
        if layer == "mlp/fc1" or model.config.form.qkv_bias:
            wanted[f"{layer}_{linear}/bias"] = channels
        wanted |= {f"{layer}_bn/{leaf}": channels for leaf in ("scale", "bias", "mean", "var")}
    wanted |= {f"attn/proj_{linear}/kernel": second, f"mlp/fc2_{linear}/kernel": second}
    in_block_0 = {key: specs for key, specs in split.items() if "block_1" not in key}
    assert in_block_0.keys() == wanted.keys()
    for key, specs in in_block_0.items():  # parameter, two moments, average; or statistic, average
        assert specs == [wanted[key]] * (2 if key.endswith(("mean", "var")) else 4)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((3, 3, 192, 384), (None, None, None, "data")),
        ((1536, 384), ("data",)),
        ((384, 1534), ("data",)),
        ((383, 1534), ()),  # no divisible axis
        ((8, 8), ()),  # too small
        ((), ()),
    ],
)
def test_fsdp_splits_the_largest_divisible_axis(shape, spec):
    assert sharding.largest_axis(shape, abstract(8)) == PartitionSpec(*spec)


@pytest.mark.parametrize(
    ("mesh", "name", "message"),
    [
        (
            abstract(8),
            "zero",
            "sharding='zero' must be one of replicate, fsdp, tensor, fsdp_",
        ),
        (abstract(4, 2), "fsdp", "sharding='fsdp' leaves the axis 'model' .* without work"),
    ],
)
def test_placements_that_make_no_sense_are_named(mesh, name, message):
    with pytest.raises(ValueError, match=message):
        Placement(mesh, name)


def test_heads_must_divide_over_the_model_axis():
    config = types.SimpleNamespace(num_heads=12, hidden_dim=1536)
    placement = Placement(abstract(1, 8), "tensor", FAMILY.tensor_rules)
    with pytest.raises(ValueError, match="model.num_heads=12 must be divisible by mesh.model=8"):
        sharding.check_model(config, placement, FAMILY.divided)
    config.num_heads = 8
    sharding.check_model(config, placement, FAMILY.divided)


def test_collectives_are_read_from_a_program():
    text = """
      %a = f32[4]{0} all-reduce(%x), channel_id=1
      %b = (f32[16]{0}, bf16[2,3]{1,0}) all-reduce(%y, %z), channel_id=2
      %c = (f32[4,8]{1,0}, f32[32,8]{1,0}) all-gather-start(%w), channel_id=3
      %d = f32[32,8]{1,0} all-gather-done(%c)
      %e = s32[] add(%f, %g)
    """
    found = collectives(text)
    assert found == [
        Collective("all-reduce", "f32", (4,)),
        Collective("all-reduce", "f32", (16,)),
        Collective("all-reduce", "bf16", (2, 3)),
        Collective("all-gather", "f32", (32, 8)),
    ]
    assert [c.bytes for c in found] == [16, 64, 12, 1024]


# Blocks computed again in the backward pass.


def with_remat(config, remat):
    return dataclasses.replace(config, remat=remat, drop_path=0.3)


def test_recomputed_blocks_have_the_same_gradients(tiny):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (2, 4, 4, 32)).astype(np.float32)  # B T N D
    weights = rng.normal(size=x.shape).astype(np.float32)
    stats = tiny.variables["batch_stats"]["block_0"]

    def gradients(remat):
        config = with_remat(tiny.model.config, remat)
        model = tiny.model.clone(config=config).bind({})
        block = parts.rematerialised(model, Block, train=True)(config, 0.3)

        def loss(params):
            variables, keys = {"params": params, "batch_stats": stats}, {"drop_path": key}
            signal = Signal.of(jnp.asarray(x))
            y, new = block.apply(variables, signal, True, mutable=["batch_stats"], rngs=keys)
            return jnp.sum(y.values * weights), new

        key = jax.random.key(2)
        return jax.jit(jax.grad(loss, has_aux=True))(tiny.variables["params"]["block_0"])

    kept, again = gradients("none"), gradients("block")
    assert all(np.any(leaf) for leaf in jax.tree.leaves(kept[0]["mlp"]["fc2_bn"]))
    rounding = 1e-6 * max(np.abs(leaf).max() for leaf in jax.tree.leaves(kept))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=rounding), again, kept
    )


def test_recomputed_blocks_keep_less_for_the_backward_pass(tiny):
    def kept(remat):
        model = tiny.model.clone(config=with_remat(tiny.model.config, remat))

        def forward(params):
            variables, keys = tiny.variables | {"params": params}, {"drop_path": jax.random.key(0)}
            return model.apply(
                variables, tiny.images, train=True, mutable=["batch_stats"], rngs=keys
            )

        residuals = jax.eval_shape(lambda p: jax.vjp(forward, p)[1], tiny.variables["params"])
        return sum(leaf.size for leaf in jax.tree.leaves(residuals))

    assert kept("block") < 0.8 * kept("none")


def test_an_unknown_way_to_recompute_is_named(tiny):
    with pytest.raises(ValueError, match="remat='all' must be one of none, block"):
        with_remat(tiny.model.config, "all")


# Start-up.


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({"SLURM_STEP_NUM_TASKS": "16"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"}, False),  # a batch script, not srun
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
    ],
)
def test_launchers_are_recognised(environment, several):
    assert distributed.several_processes(environment) == several


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"num_processes": 2, "process_id": 0}, "need a coordinator_address"),
        ({"coordinator_address": "host", "num_processes": 2}, "'host' must be host:port"),
        (
            {"coordinator_address": "h:1", "num_processes": 2, "process_id": 2},
            r"process_id=2 must lie in \[0, num_processes=2\)",
        ),
        ({"heartbeat_timeout": 0}, "heartbeat_timeout=0 must be at least 1 second"),
    ],
)
def test_flags_that_do_not_fit_are_named(flags, message):
    with pytest.raises(ValueError, match=message):
        distributed.initialize(**flags)


# The same training on one device, on eight in every layout, and on two processes of four.


@pytest.fixture(scope="module")
def weights(tmp_path_factory, lively):
    path = tmp_path_factory.mktemp("weights") / "lively.safetensors"
    model = loop.build(parallel_run.small_config(None)).model
    initial.save(path, jax.device_get(lively(model, 1)))
    return path


@pytest.fixture(scope="module")
def one_device(weights):
    """(experiment, state after 20 steps, losses, compiled step) of the ordinary training."""
    return parallel_run.train(parallel_run.small_config(weights))


@pytest.fixture(scope="module")
def eight(weights, tmp_path_factory):
    """What eight_devices.py saw in each layout."""
    return two_processes.told_by("eight_devices.py", weights, tmp_path_factory.mktemp("eight"))


def assert_same_losses(found, wanted):
    """Equal up to rounding in most steps, and in no step further apart than by a few spikes.

    Sums in another order differ in the last bit. Where a membrane potential comes that close to the
    threshold, an image has one spike more or less, and the loss of that step differs in the third
    digit. A mistake in what the devices sum would be seen in every step after the first.
    """
    differences = np.abs(np.asarray(found) / wanted - 1)
    assert np.median(differences) < 1e-6, differences
    assert np.max(differences) < 0.02, differences


@pytest.mark.parametrize("layout", LAYOUTS)
def test_eight_devices_train_as_one_does(one_device, eight, layout):
    experiment, state, losses, _ = one_device
    assert_same_losses(eight[layout]["losses"], losses)
    masks = parallel_run.active_steps(experiment, state)
    assert eight[layout]["masks"] == masks
    assert 0 < sum(map(sum, masks.values())) < 2 * len(masks)  # steps were given up


def test_states_stay_where_they_are_kept(eight):
    assert all(eight[layout]["as_kept"] for layout in LAYOUTS)
    assert eight["replicate"]["share"] == 1
    assert eight["fsdp"]["share"] < 0.2  # 1/8 and the small arrays
    assert eight["tensor"]["share"] < 0.8
    assert eight["fsdp_tensor"]["share"] < 0.25


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_step_gathers_the_weights_that_are_split_over_data_and_no_activation(eight, layout):
    seen = eight[layout]
    gathers = [shape for kind, shape in seen["collectives"] if kind != "all-reduce"]
    assert sorted(gathers) == sorted(seen["gathered"])  # each once
    assert bool(gathers) == layout.startswith("fsdp")


def test_fsdp_saves_memory_of_the_state(eight):
    """What docs/sharding.md promises, and not that a step needs less besides."""
    state = {layout: seen["argument_bytes"] for layout, seen in eight.items() if layout in LAYOUTS}
    assert state["fsdp"] < 0.3 * state["replicate"]  # the batch is an argument too
    assert state["fsdp_tensor"] < 0.6 * state["tensor"]
    whole = {layout: state[layout] + eight[layout]["temporary_bytes"] for layout in state}
    assert whole["fsdp"] < whole["replicate"]
    assert whole["fsdp_tensor"] < whole["tensor"]


def test_checkpoints_pass_from_one_layout_to_another(eight):
    assert eight["restored"] == {
        "fsdp to tensor": True,
        "tensor to fsdp_tensor": True,
        "fsdp_tensor to fsdp": True,
    }


def lines_of(folder):
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_until(seen, pair, seconds=300):
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end and all(p.poll() is None for p in pair.processes), (
            pair.output(0) + pair.output(1)
        )
        time.sleep(0.05)


@pytest.fixture(scope="module")
def terminated(weights, tmp_path_factory):
    """A run of two processes, the second of which got SIGTERM after the evaluation at step 20."""
    folder = tmp_path_factory.mktemp("two")
    config_file = two_processes.write_config(folder / "small.py", weights)
    with two_processes.Pair(config_file, folder / "run") as pair:
        wait_until(lambda: any("eval_loss" in line for line in lines_of(folder / "run")), pair)
        pair.processes[1].send_signal(signal.SIGTERM)
        statuses = pair.wait()
    return types.SimpleNamespace(
        folder=folder, run=folder / "run", config_file=config_file, statuses=statuses
    )


def test_two_processes_train_as_one_device_does(one_device, terminated):
    losses = [line["loss"] for line in lines_of(terminated.run) if "loss" in line]
    assert_same_losses(losses[: parallel_run.STEPS], one_device[2])


def test_sigterm_to_one_process_stops_all_at_the_same_saved_step(terminated):
    assert terminated.statuses == [128 + signal.SIGTERM] * 2
    with Checkpoints(terminated.run / "checkpoints") as checkpoints:
        assert checkpoints.steps == [parallel_run.STEPS, lines_of(terminated.run)[-1]["step"]]


def test_one_device_evaluates_what_two_processes_saved(one_device, terminated, weights, tmp_path):
    shutil.copytree(
        terminated.run / "checkpoints" / str(parallel_run.STEPS),
        tmp_path / "checkpoints" / str(parallel_run.STEPS),
    )
    run = loop.Run(parallel_run.small_config(weights), tmp_path, training=False)
    assert int(run.state.step) == parallel_run.STEPS
    assert parallel_run.active_steps(run.experiment, run.state) == parallel_run.active_steps(
        *one_device[:2]
    )
    seen = next(line for line in lines_of(terminated.run) if "eval_loss" in line)
    result = run.evaluate()
    assert result.examples == 360
    np.testing.assert_allclose(seen["eval_loss"], result.loss, rtol=1e-5)
    np.testing.assert_allclose(seen["eval_accuracy"], result.accuracy, rtol=1e-6)
    np.testing.assert_allclose(seen["eval_energy_uj"], result.energy.microjoule, rtol=1e-5)


def test_two_processes_come_back_after_a_kill_and_notice_a_silent_one(one_device, terminated):
    run = terminated.folder / "continued"
    with Checkpoints(run / "checkpoints") as checkpoints:
        checkpoints.save(parallel_run.STEPS, one_device[1])
    with two_processes.Pair(terminated.config_file, run, "--restart=5") as pair:
        # The evaluation that is due at the checkpoint's step is made up for first.
        trained = lambda: [line["step"] for line in lines_of(run) if "loss" in line]  # noqa: E731
        wait_until(trained, pair)
        assert trained()[0] == parallel_run.STEPS + 1
        os.kill(pair.trainer(1), signal.SIGKILL)
        wait_until(lambda: pair.output(0).count(f"from step {parallel_run.STEPS} of ") == 2, pair)
        assert "restart: it was killed by SIGKILL; restart 1 of 5 from step" in pair.output(1)
        assert "restart: " in pair.output(0)
        os.kill(pair.trainer(1), signal.SIGSTOP)
        silent = (
            "(process 1 of 2 has been silent for 12 seconds)\nrestart: another process was lost"
        )
        wait_until(lambda: silent in pair.output(0), pair)
