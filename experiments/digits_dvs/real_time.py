"""Early exit over real time: python experiments/digits_dvs/real_time.py WORKDIR OUT.

A recording does not repeat itself: an answer after t time steps needs its events until then and no
more. For a run on recordings (configs/digits_dvs.py, or a folder of events) this sweeps the
confidence at which a recording exits over the held-out split, and says how many milliseconds of
recording an answer has needed on average. Writes real_time.json and real_time.png into OUT.
"""

import argparse
import json
import pathlib

import jax
import numpy as np
from matplotlib.figure import Figure

from snnvit_jax.common import files
from snnvit_jax.common.arguments import output_folder
from snnvit_jax.data import loader, sources
from snnvit_jax.evaluation import early_exit
from snnvit_jax.report import figures
from snnvit_jax.runs import loop
from snnvit_jax.runs.workdir import Workdir
from snnvit_jax.time_steps.schedule import TimeStepSchedule

THRESHOLDS = 1 - np.geomspace(1e-3, 0.9, 41)  # from an exit for almost nobody to one for all


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("out", type=output_folder)
    options = parser.parse_args()
    workdir, out = options.workdir, options.out
    config = Workdir(workdir).read_config()
    if config is None or config.data.name not in sources.EVENT_SETS:
        raise ValueError(f"the workdir {str(workdir)!r} holds no run on recordings")
    run = loop.Run(config, workdir, training=False)
    times = run.experiment.recording_times()
    if times is None:
        raise ValueError(
            f"data.dir={config.data.dir!r} holds frames that were prepared, which do not say when "
            "their events happened; experiments/early_exit/measure.py counts time steps"
        )
    variables = jax.device_get(run.state.eval_variables)
    logits, labels = running(run.experiment, variables)
    check_order(labels, run.experiment.eval_source.examples)
    found = result(logits, labels, times, TimeStepSchedule.from_variables(variables))
    out.mkdir(parents=True, exist_ok=True)
    files.write_text(out / "real_time.json", json.dumps(found, indent=1) + "\n")
    with figures.style():
        (out / "real_time.png").write_bytes(figures.as_png(draw(found)))
    for step, (time, accuracy) in enumerate(zip(*found["stop"].values(), strict=True), 1):
        print(f"all stop after step {step}: {accuracy:.4f} at {time:.1f} ms")
    for values in list(zip(*found["exit"].values(), strict=True))[::5]:
        print("exit at confidence {:.3f}: {:.4f} at {:.1f} ms".format(*values))


def running(experiment, variables):
    """Running logits [T, B, K] and labels [B] of the test split, in its order."""
    with loader.eval_batches(
        experiment.eval_source, experiment.preprocess, experiment.loader_options
    ) as batches:
        return early_exit.running_logits_of(
            experiment.model, variables, batches, experiment.normalization
        )


def check_order(labels, examples):
    """Raises ValueError if evaluated labels [B] are not those of the split in its order.

    A recording that was left out, because it is damaged, is left out here too.
    """
    of_file = getattr(examples, "label", lambda index: examples[index]["label"])
    expected = map(of_file, range(len(examples)))
    if not all(any(label == own for own in expected) for label in labels.tolist()):
        raise ValueError("the evaluation did not follow the order of the split")


def result(logits, labels, times, schedule):
    """Accuracies and times: of stopping after each step, and of exits by confidence."""
    sweep = early_exit.sweep(logits, labels, THRESHOLDS, "confidence", times)
    right = np.argmax(logits, axis=-1) == labels
    return {
        "examples": len(labels),
        "average_time_steps": schedule.average,
        "stop": {"milliseconds": times.mean(1).tolist(), "accuracy": right.mean(1).tolist()},
        "exit": {
            "threshold": sweep.thresholds.tolist(),
            "accuracy": sweep.accuracy.tolist(),
            "milliseconds": sweep.average_time_steps.tolist(),
        },
    }


def draw(found):
    """A figure of accuracy against the time of recording that an answer has needed."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for key, marker, color, label in (
        ("stop", "s-", figures.SECOND, "all stop after the same step"),
        ("exit", "o-", figures.ACCENT, "each exits once it is confident"),
    ):
        x, y = found[key]["milliseconds"], 100 * np.array(found[key]["accuracy"])
        axes.plot(x, y, marker, color=color, ms=4, label=label)
    axes.set(xlabel="milliseconds of recording until the answer, on average", xlim=(0, None))
    axes.set(ylabel="test accuracy in %")
    axes.grid(linewidth=0.6)
    axes.legend(frameon=False, loc="lower right", fontsize="small")
    return figure


if __name__ == "__main__":
    main()
