"""What deployment saves on a trained model: python measure.py WORKDIR [--batch_size=64].

Compares the masked model (`model.apply`, compiled), its deployment with all time steps on, and its
deployment with the schedule that it learned: FLOPs as compiled, median time of interleaved calls,
and on the whole evaluation split how far the logits are from the masked model's. Writes
WORKDIR/deployed.json and prints a table.
"""

import argparse
import json
import pathlib
import platform
import time

import jax
import numpy as np

import snnvit_jax as snn
from snnvit_jax import loop
from snnvit_jax.data import loader
from snnvit_jax.deploy.flops import model_flops
from snnvit_jax.workdir import Workdir

FLIP = 1e-4  # logits further apart than this have seen another spike, not another rounding


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=15)
    arguments = parser.parse_args()
    result = measure(arguments.workdir, arguments.batch_size, arguments.repetitions)
    text = json.dumps(result, indent=1)
    (arguments.workdir / "deployed.json").write_text(text + "\n")
    print_table(result)


def measure(folder, batch_size, repetitions):
    config = Workdir(folder).read_config()
    if config is None:
        raise ValueError(f"the workdir {folder} holds no run")
    run = loop.Run(config, folder)
    model, variables = run.experiment.model, jax.device_get(run.state.variables)
    batches = read_batches(run.experiment, batch_size)
    names = snn.layer_names(model, run.experiment.image_shape[-1])
    all_steps = snn.TimeStepSchedule({n: [1] * model.config.time_steps for n in names})
    everything, learned = snn.deploy(model, variables, all_steps), snn.deploy(model, variables)
    apply, on_device = jax.jit(model.apply), jax.device_put(variables)
    programs = {
        "model.apply, masked": lambda images: apply(on_device, images),
        "deployed, all steps": everything,
        "deployed, learned steps": learned,
    }
    channels = run.experiment.image_shape[-1]
    flops = [model_flops(model, variables, batch_size, channels)]
    flops += [program.flops(batch_size) for program in (everything, learned)]
    seconds = interleaved_medians(programs.values(), batches[0]["image"], repetitions)
    return {
        "average_time_steps": learned.schedule.average,
        "time_steps": learned.schedule.time_steps,
        "computed_steps": float(np.mean([len(steps) for steps in learned.steps.values()])),
        "batch_size": batch_size,
        "repetitions": repetitions,
        "device": f"{jax.devices()[0].device_kind}, {platform.machine()}",
        "programs": {
            name: {"flops": f, "seconds": s}
            for name, f, s in zip(programs, flops, seconds, strict=True)
        },
        "equality": compare(programs["model.apply, masked"], learned, batches),
    }


def read_batches(experiment, batch_size):
    with loader.eval_batches(
        experiment.eval_source, experiment.preprocess, batch_size=batch_size
    ) as batches:
        return list(batches)


def interleaved_medians(programs, images, repetitions):
    """Median seconds of each, called in turn so that all see the same load of the machine."""
    programs, images = list(programs), jax.device_put(images)
    seconds = [[] for _ in programs]
    for repetition in range(-2, repetitions):  # the first call compiles, the second warms up
        for program, times in zip(programs, seconds, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(program(images))
            if repetition >= 0:
                times.append(time.perf_counter() - start)
    return [float(np.median(times)) for times in seconds]


def compare(masked, deployed, batches):
    """How far two programs' logits are apart, over a whole split."""
    difference, same, right = [], [], []
    for batch in batches:
        a, b = (np.asarray(f(batch["image"]))[batch["mask"]] for f in (masked, deployed))
        difference.append(np.abs(a - b).max(axis=1))
        same.append(a.argmax(1) == b.argmax(1))
        label = batch["label"][batch["mask"]]
        right.append(np.stack([a.argmax(1) == label, b.argmax(1) == label]))
    difference, same = np.concatenate(difference), np.concatenate(same)
    right = np.concatenate(right, axis=1)
    return {
        "images": difference.size,
        "median_logit_difference": float(np.median(difference)),
        "images_with_a_flipped_spike": int((difference > FLIP).sum()),
        "images_with_another_prediction": int((~same).sum()),
        "accuracy_masked": float(right[0].mean()),
        "accuracy_deployed": float(right[1].mean()),
    }


def print_table(result):
    full = next(iter(result["programs"].values()))
    print(f"{'program':26} {'MFLOPs an image':>16} {'ratio':>6} {'ms a batch':>11} {'ratio':>6}")
    for name, entry in result["programs"].items():
        flops, seconds = entry["flops"], entry["seconds"]
        print(
            f"{name:26} {flops / result['batch_size'] / 1e6:16.3f} {flops / full['flops']:6.3f} "
            f"{seconds * 1e3:11.2f} {seconds / full['seconds']:6.3f}"
        )
    print(json.dumps({k: v for k, v in result.items() if k != "programs"}, indent=1))


if __name__ == "__main__":
    main()
