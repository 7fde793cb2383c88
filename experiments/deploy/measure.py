"""What deployment saves on a trained model: python measure.py WORKDIR [--batch_size 1 64].

Compares the masked model (`model.apply`, compiled), its deployment with all time steps on, its
deployment with the schedule that it learned, and the latter written as ONNX and computed by
onnxruntime: FLOPs as compiled, median and shortest time of calls made in turn, sizes of the files,
and on the whole held-out split how far the logits are apart. Writes OUT/deployed.json, by default
into WORKDIR, and prints a table.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import platform
import tempfile

import jax
import numpy as np

import snnvit_jax as snn
from snnvit_jax.common.arguments import number, output_folder, whole
from snnvit_jax.common.pixels import normalised
from snnvit_jax.data import loader
from snnvit_jax.evaluation import timing
from snnvit_jax.models.flops import model_flops
from snnvit_jax.runs import analysis
from snnvit_jax.xla import backends

FLIP = 1e-4  # logits further apart than this have seen another spike, not another rounding
MASKED, EVERYTHING, LEARNED = (
    "model.apply, masked",
    "deployed, all steps",
    "deployed, learned steps",
)
ONNX = "the same by onnxruntime"
TO_INSTALL = "pip install 'snnvit_jax[onnx]' onnxruntime"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", help="or a trained network: pretrained:NAME")
    parser.add_argument("--out", type=output_folder, help="folder, which a trained network needs")
    parser.add_argument("--data_dir", help="folder of the data set, which a trained network needs")
    parser.add_argument("--batch_size", type=whole(1), nargs="+", default=[1, 64])
    parser.add_argument(
        "--seconds",
        type=number(above=0),
        default=15.0,
        help="of timing, at least 7 calls",
    )
    args = parser.parse_args()
    out = args.out or pathlib.Path(args.workdir)
    if args.out is None and not out.is_dir():
        parser.error(f"{args.workdir} is no folder: say with --out where the results go")
    try:
        runtime = onnxruntime()
        run = analysis.open_run(args.workdir, data_dir=args.data_dir)
    except (ImportError, ValueError, OSError) as error:
        parser.error(str(error))
    results = measure(*run, runtime, args.batch_size, args.seconds)
    out.mkdir(parents=True, exist_ok=True)
    (out / "deployed.json").write_text(json.dumps(results, indent=1) + "\n")
    for result in results:
        print_table(result)


def onnxruntime():
    """The package, or an error that says what to install; also if ONNX cannot be written."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"{error}; ONNX is written and computed by: {TO_INSTALL}") from error
    return onnxruntime


def measure(experiment, variables, runtime, batch_sizes, duration):
    """Returns a measurement for each batch size; of a run, from `analysis.open_run`."""
    model, variables = experiment.model, jax.device_get(variables)
    names = snn.layer_names(model, experiment.image_shape[-1])
    recordings = len(experiment.image_shape) == 4
    all_steps = snn.TimeStepSchedule({n: [1] * model.config.time_steps for n in names})
    everything = snn.deploy(model, variables, all_steps, recordings=recordings)
    learned = snn.deploy(model, variables, recordings=recordings)
    by_onnx, files = written(learned, runtime)
    # With the options of this backend's compiler, as the deployed programs have them.
    apply, on_device = backends.jit(model.apply), jax.device_put(variables)
    programs = {
        MASKED: lambda images: apply(on_device, images),
        EVERYTHING: everything,
        LEARNED: learned,
        ONNX: by_onnx,
    }
    about = {
        "average_time_steps": learned.schedule.average,
        "time_steps": learned.schedule.time_steps,
        "computed_steps": float(np.mean([len(steps) for steps in learned.steps.values()])),
        "device": f"{jax.devices()[0].device_kind}, {platform.machine()}",
        "threads": cores(),
        "files": files,
    }
    return [
        about | of_batch_size(size, experiment, variables, programs, duration)
        for size in batch_sizes
    ]


def of_batch_size(size, experiment, variables, programs, duration):
    """What is measured with batches of one size."""
    batches = read_batches(experiment, size)
    seconds = times(programs, batches[0]["image"], duration)
    flops = {
        MASKED: model_flops(experiment.model, variables, size, experiment.image_shape),
        EVERYTHING: programs[EVERYTHING].flops(size),
        LEARNED: programs[LEARNED].flops(size),
        ONNX: None,  # onnxruntime does not count them
    }
    return {
        "batch_size": size,
        "repetitions": len(seconds[MASKED]),
        "programs": {
            name: {"flops": flops[name], "seconds": float(np.median(s)), "fastest": min(s)}
            for name, s in seconds.items()
        },
        "equality": compare(programs, batches),
    }


def written(deployed, runtime):
    """(the model's ONNX file as a function of images, sizes of its files in bytes)."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / f"model.{kind}" for kind in ("snn", "onnx")]
        for path in paths:
            deployed.save(path)
        sizes = {f"bytes_of_{path.suffix[1:]}": path.stat().st_size for path in paths}
        options = runtime.SessionOptions()
        options.intra_op_num_threads = cores()  # XLA's number too, whatever cores the machine has
        session = runtime.InferenceSession(
            str(paths[-1]), options, providers=["CPUExecutionProvider"]
        )
    return lambda images: session.run(["logits"], {"images": np.asarray(images)})[0], sizes


def cores():
    """Cores that this process may use."""
    asked = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(asked(0)) if asked else os.cpu_count()


def times(programs, images, duration):
    """{name: seconds of each call} of programs called in turn, each with images where it is."""
    on_device = jax.device_put(images)
    calls = [
        functools.partial(program, images if name == ONNX else on_device)
        for name, program in programs.items()
    ]
    return dict(zip(programs, timing.interleaved(calls, duration), strict=True))


def read_batches(experiment, batch_size):
    options = dataclasses.replace(experiment.loader_options, batch_size=batch_size)
    with loader.eval_batches(experiment.eval_source, experiment.preprocess, options) as batches:
        return [x | {"image": normalised(x["image"], experiment.normalization)} for x in batches]


def compare(programs, batches):
    """How far the programs' logits are apart, over a whole split."""
    logits = {
        name: np.concatenate([np.asarray(f(x["image"]))[x["mask"]] for x in batches])
        for name, f in programs.items()
    }
    labels = np.concatenate([batch["label"][batch["mask"]] for batch in batches])
    right = {name: float((x.argmax(1) == labels).mean()) for name, x in logits.items()}
    by_onnx = apart(logits[LEARNED], logits[ONNX])
    return {
        "images": len(labels),
        **apart(logits[MASKED], logits[LEARNED]),
        "accuracy_masked": right[MASKED],
        "accuracy_deployed": right[LEARNED],
        **{f"onnx_{key}": value for key, value in by_onnx.items()},
        "onnx_accuracy": right[ONNX],
    }


def apart(one, other):
    """How far logits [B, K] are from others."""
    difference = np.abs(one - other).max(axis=1)
    return {
        "median_logit_difference": float(np.median(difference)),
        "largest_logit_difference": float(difference.max()),
        "images_with_a_flipped_spike": int((difference > FLIP).sum()),
        "images_with_another_prediction": int((one.argmax(1) != other.argmax(1)).sum()),
    }


def print_table(result):
    full = next(iter(result["programs"].values()))
    print(f"batch size {result['batch_size']}, {result['repetitions']} calls each, in turn")
    print(f"{'':24} MFLOPs an image  ratio  median ms  ratio  fastest ms  ratio")
    for name, entry in result["programs"].items():
        flops, median, fastest = (entry[key] for key in ("flops", "seconds", "fastest"))
        counted = f"{'':22}"
        if flops is not None:
            per_image = flops / result["batch_size"] / 1e6
            counted = f"{per_image:15.3f} {flops / full['flops']:6.3f}"
        print(
            f"{name:24} {counted} "
            f"{median * 1e3:10.2f} {median / full['seconds']:6.3f} "
            f"{fastest * 1e3:11.2f} {fastest / full['fastest']:6.3f}"
        )
    print(json.dumps({k: v for k, v in result.items() if k != "programs"}, indent=1))


if __name__ == "__main__":
    main()
