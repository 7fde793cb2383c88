"""What deployment saves on a trained model: python measure.py WORKDIR [--batch_size 1 64].

Compares the masked model (`model.apply`, compiled), its deployment with all time steps on, and its
deployment with the schedule that it learned: FLOPs as compiled, median and shortest time of calls
made in turn, and on the whole evaluation split how far the logits are from the masked model's.
Writes WORKDIR/deployed.json and prints a table.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import platform

import jax
import numpy as np

import snnvit_jax as snn
from snnvit_jax.data import loader
from snnvit_jax.evaluation import timing
from snnvit_jax.runs import loop
from snnvit_jax.runs.workdir import Workdir
from snnvit_jax.xla import backends
from snnvit_jax.xla.flops import model_flops

FLIP = 1e-4  # logits further apart than this have seen another spike, not another rounding


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--batch_size", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--seconds", type=float, default=15.0, help="of timing, at least 7 calls")
    arguments = parser.parse_args()
    results = [measure(arguments.workdir, b, arguments.seconds) for b in arguments.batch_size]
    text = json.dumps(results, indent=1)
    (arguments.workdir / "deployed.json").write_text(text + "\n")
    for result in results:
        print_table(result)


def measure(folder, batch_size, duration):
    config = Workdir(folder).read_config()
    if config is None:
        raise ValueError(f"the workdir {folder} holds no run")
    run = loop.Run(config, folder, training=False)
    model, variables = run.experiment.model, jax.device_get(run.state.eval_variables)
    batches = read_batches(run.experiment, batch_size)
    names = snn.layer_names(model, run.experiment.image_shape[-1])
    all_steps = snn.TimeStepSchedule({n: [1] * model.config.time_steps for n in names})
    everything, learned = snn.deploy(model, variables, all_steps), snn.deploy(model, variables)
    # With the options of this backend's compiler, as the deployed programs have them.
    apply, on_device = backends.jit(model.apply), jax.device_put(variables)
    programs = {
        "model.apply, masked": lambda images: apply(on_device, images),
        "deployed, all steps": everything,
        "deployed, learned steps": learned,
    }
    flops = [model_flops(model, variables, batch_size, run.experiment.image_shape)]
    flops += [program.flops(batch_size) for program in (everything, learned)]
    images = jax.device_put(batches[0]["image"])
    calls = [functools.partial(program, images) for program in programs.values()]
    seconds = timing.interleaved(calls, duration)
    return {
        "average_time_steps": learned.schedule.average,
        "time_steps": learned.schedule.time_steps,
        "computed_steps": float(np.mean([len(steps) for steps in learned.steps.values()])),
        "batch_size": batch_size,
        "repetitions": len(seconds[0]),
        "device": f"{jax.devices()[0].device_kind}, {platform.machine()}",
        "programs": {
            name: {"flops": f, "seconds": float(np.median(s)), "fastest": min(s)}
            for name, f, s in zip(programs, flops, seconds, strict=True)
        },
        "equality": compare(programs["model.apply, masked"], learned, batches),
    }


def read_batches(experiment, batch_size):
    options = dataclasses.replace(experiment.loader_options, batch_size=batch_size)
    with loader.eval_batches(experiment.eval_source, experiment.preprocess, options) as batches:
        return list(batches)


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
    print(f"batch size {result['batch_size']}, {result['repetitions']} calls each, in turn")
    print(f"{'':24} MFLOPs an image  ratio  median ms  ratio  fastest ms  ratio")
    for name, entry in result["programs"].items():
        flops, median, fastest = (entry[key] for key in ("flops", "seconds", "fastest"))
        print(
            f"{name:24} {flops / result['batch_size'] / 1e6:15.3f} {flops / full['flops']:6.3f} "
            f"{median * 1e3:10.2f} {median / full['seconds']:6.3f} "
            f"{fastest * 1e3:11.2f} {fastest / full['fastest']:6.3f}"
        )
    print(json.dumps({k: v for k, v in result.items() if k != "programs"}, indent=1))


if __name__ == "__main__":
    main()
