"""Writes the files of this folder: python make.py OUT, with the commit installed that they are of.

Runs the command line of that commit, so that the files are what a user of it has: see README.md.
tests/test_compatibility.py takes `RUNS` and `digests` from here.
"""

import argparse
import hashlib
import importlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

# Those of tests/conftest.py, so that the numbers are rounded as in the tests that compare them.
XLA_FLAGS = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false"
)
# What both runs share: three epochs of eight steps, each logged, of a network of 6,800 weights.
CONFIG = """\
from snnvit_jax.config import default_config


def get_config():
    config = default_config()
    config.epochs = 3
    config.batch_size = 180
    config.log_every_steps = 1
    config.keep_checkpoints = 1
    config.target_time_steps = 1.5
    config.time_step_penalty = 2.0
    config.time_step_anneal_epochs = 3.0
    config.model.update(time_steps=3, embed_dim=16, num_heads=2, depth=1, mlp_ratio=2.0)
    config.data.update(image_size=8, crop_padding=1, mean=(0.3,), std=(0.4,))
    config.optimizer.update(learning_rate=3e-3, score_multiplier=100.0, warmup_epochs=0.5)
    return config
"""
# What each adds to it.
RUNS = {
    "adamw": ("--config.init_from=lif.safetensors",),
    "averaged_plif": (
        *("--config.init_from=plif.safetensors", "--config.model.neuron.kind=plif"),
        *("--config.seed=3", "--config.average_decay=0.9"),
        *("--config.model.drop_path=0.1", "--config.mixing.cutmix_alpha=1.0"),
    ),
}
STOP_AFTER = 17  # of 24 steps; the one of the signal may come a little later


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path, help="a folder that does not exist yet")
    out = parser.parse_args().out.absolute()
    os.environ.setdefault("XLA_FLAGS", XLA_FLAGS)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_HLO_SOURCE_FILE_CANONICALIZATION_REGEX"] = ".*/"  # no paths in model.snn
    out.mkdir(parents=True)
    os.chdir(out)  # the paths in the runs' configurations are relative to it
    pathlib.Path("config.py").write_text(CONFIG)
    for kind in ("lif", "plif"):
        write_weights(kind)
    numbers = {name: make_run(pathlib.Path(name), flags) for name, flags in RUNS.items()}
    pathlib.Path("numbers.json").write_text(json.dumps(numbers, indent=1) + "\n")
    write_deployed(pathlib.Path("adamw"))
    for name in RUNS:
        strip(pathlib.Path(name))
    command("carry", "pack", "averaged_plif", "carried", "--megabytes=0.125")
    shutil.rmtree("averaged_plif")  # it was carried
    pathlib.Path("config.py").unlink()


def write_weights(kind):
    """Random weights with which every layer fires, for init_from."""
    import jax
    import numpy as np
    import safetensors.numpy
    from flax import traverse_util

    import snnvit_jax as snn

    settings = {"embed_dim": 16, "num_heads": 2, "depth": 1, "mlp_ratio": 2.0}
    settings["neuron"] = {"kind": kind}
    model = snn.create_model("spikformer_4_384", 10, image_size=8, time_steps=3, **settings)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))
    rng = np.random.default_rng(1)
    draw = {
        "kernel": lambda shape: rng.uniform(-1, 1, shape) * (3 / np.prod(shape[:-1])) ** 0.5,
        "scale": lambda shape: rng.uniform(1, 2, shape),
        "bias": lambda shape: rng.uniform(0, 1.5, shape),
        **{"mean": np.zeros, "var": np.ones, "tau_logit": np.zeros},
    }
    weights = {
        name: draw[name.rpartition("/")[2]](leaf.shape).astype(np.float32)
        for name, leaf in sorted(traverse_util.flatten_dict(shapes, sep="/").items())
        if name.rpartition("/")[2] in draw  # scores start with every step active
    }
    weights["params/head/bias"] *= 0  # so that not every image is of the class that it favours
    safetensors.numpy.save_file(weights, f"{kind}.safetensors")


def make_run(folder, flags):
    """Writes a run's folder as a signal left it; returns what it evaluates and continues to."""
    train = ("main", "--config=config.py", *flags)
    stop_in_the_middle((*train, f"--workdir={folder}"), folder)
    command("main", f"--workdir={folder}", "--mode=evaluate")
    stopped = digests(state_of(folder))
    whole = pathlib.Path(shutil.copytree(folder, f"{folder}_continued"))
    command(*train, f"--workdir={whole}")
    numbers = {
        "stopped": stopped,
        "metrics": read_lines(whole / "metrics.jsonl"),
        "summary": json.loads((whole / "summary.json").read_text()),
        "masks": json.loads((whole / "schedule.json").read_text())["masks"],
    }
    shutil.rmtree(whole)
    return numbers


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def state_of(folder):
    loop, workdir = (importlib.import_module(f"snnvit_jax.{name}") for name in ("loop", "workdir"))
    config = workdir.Workdir(folder).read_config()
    return loop.Run(config, folder, training=False).state


def digests(state):
    """Returns {name: digest} of a training state's arrays; the optimiser's by no name, in order."""
    import jax
    import numpy as np
    from flax import traverse_util

    def digest(leaf):
        array = np.asarray(leaf)
        kind = f"{array.dtype}{array.shape}"
        return f"{kind} {hashlib.sha256(array.tobytes()).hexdigest()[:12]}"

    named = {name: getattr(state, name) for name in ("params", "batch_stats", "average")}
    numbers = {name: getattr(state, name) for name in ("step", "penalty_weight", "skipped")}
    flat = traverse_util.flatten_dict({k: v for k, v in named.items() if v is not None}, sep="/")
    found = {name: digest(leaf) for name, leaf in (flat | numbers).items()}
    return found | {"opt_state": sorted(map(digest, jax.tree.leaves(state.opt_state)))}


def stop_in_the_middle(arguments, folder):
    process = subprocess.Popen(words(*arguments))
    while process.poll() is None and steps_logged(folder) < STOP_AFTER:
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    if process.wait() != 128 + signal.SIGTERM:
        raise SystemExit(f"{folder} was not stopped in the middle: run again on a quieter machine")


def steps_logged(folder):
    metrics = folder / "metrics.jsonl"
    whole = metrics.read_text().splitlines()[:-1] if metrics.exists() else []
    return max([json.loads(line)["step"] for line in whole], default=0)


def write_deployed(folder):
    """Exports the run that was stopped, and what its file says of some images."""
    import numpy as np

    import snnvit_jax as snn

    command("main", f"--workdir={folder}", "--mode=export")
    (folder / "deployed.snn").rename("model.snn")
    (folder / "deployed.safetensors").unlink()
    deployed = snn.load_deployed("model.snn")
    images = np.random.default_rng(0).normal(size=(4, *deployed.about["image_shape"]))
    images = images.astype(np.float32)
    np.savez_compressed("model.npz", images=images, logits=deployed(images))


def strip(folder):
    """Removes what nothing reads again: events, the lock, and the checkpoint before the newest."""
    shutil.rmtree(folder / "tensorboard")
    (folder / ".lock").unlink()
    saved = folder / "checkpoints"
    newest = max(int(path.name) for path in saved.iterdir() if path.name.isdigit())
    for path in saved.iterdir():
        if path.name not in (str(newest), f"{newest}.sha256"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def command(*arguments):
    subprocess.run(words(*arguments), check=True)


def words(module, *arguments):
    return [sys.executable, "-m", f"snnvit_jax.{module}", *map(str, arguments)]


if __name__ == "__main__":
    main()
