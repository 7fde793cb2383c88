"""Early exit beside the learned schedule: python measure.py WORKDIR [WORKDIR ...] [--out=OUT].

For each trained model, sweeps the threshold of both criteria over the evaluation split and draws
accuracy against the average time steps of a layer, with the model's own schedule (no exit) as a
point. Writes early_exit.json and early_exit.png into OUT, by default the first WORKDIR. Of
recordings whose events have times it says besides how many milliseconds of a recording an answer
has needed on average; frames that were prepared from events do not say it.
"""

import argparse
import json
import pathlib

import jax
import numpy as np
from matplotlib.figure import Figure

from snnvit_jax.common.arguments import output_folder
from snnvit_jax.data import loader
from snnvit_jax.evaluation import early_exit
from snnvit_jax.report import figures
from snnvit_jax.runs import analysis
from snnvit_jax.time_steps.schedule import TimeStepSchedule

THRESHOLDS = 41
SHOWN = 15  # points below the best accuracy; an exit before the first spikes is a guess
MARKERS = {"confidence": "o-", "entropy": "s--"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", nargs="+", help="or a trained network: pretrained:NAME")
    parser.add_argument("--out", type=output_folder, help="folder, which a trained network needs")
    parser.add_argument("--data_dir", help="folder of the data set, which a trained network needs")
    args = parser.parse_args()
    out = args.out or pathlib.Path(args.workdir[0])
    if args.out is None and not out.is_dir():
        parser.error(f"{args.workdir[0]} is no folder: say with --out where the results go")
    names = [_name(place) for place in args.workdir]
    if len(set(names)) < len(names):
        parser.error(f"networks of equal names, {', '.join(names)}: rename a folder, or link to it")
    try:
        opened = [analysis.open_run(place, data_dir=args.data_dir) for place in args.workdir]
    except (ValueError, OSError) as error:
        parser.error(str(error))
    results = {name: measure(*run) for name, run in zip(names, opened, strict=True)}
    out.mkdir(parents=True, exist_ok=True)
    (out / "early_exit.json").write_text(json.dumps(results, indent=1) + "\n")
    with figures.style():
        (out / "early_exit.png").write_bytes(figures.as_png(draw(results)))
    print_table(results)


def _name(place):
    """What a run is called in the figure: its folder, or the network without the word before it."""
    name = pathlib.Path(place).name.rpartition(":")[2]
    return name or pathlib.Path(place).absolute().name


def measure(experiment, variables):
    """Returns what early exit reaches; of a run, from `analysis.open_run`."""
    variables = jax.device_get(variables)
    logits, labels = evaluate(experiment, variables)
    schedule = TimeStepSchedule.from_variables(variables)
    return result(logits, labels, schedule, experiment.recording_times())


def result(logits, labels, schedule, times):
    """What is written of a model, with milliseconds of recording where times [T, B] are known."""
    spent = early_exit.steps_spent(schedule)
    classes = logits.shape[-1]
    thresholds = {  # from an exit for almost nobody to one for all after the first step
        "confidence": 1 - np.geomspace(1e-3, 1 - 1 / classes, THRESHOLDS),
        "entropy": np.geomspace(1e-3, np.log(classes), THRESHOLDS),
    }
    right = np.argmax(logits, axis=-1) == labels
    found = {
        "examples": len(labels),
        "steps_spent": spent.tolist(),
        "accuracy_after_each_step": right.mean(1).tolist(),
        "no_exit": {"average_time_steps": schedule.average, "accuracy": right[-1].mean()},
        "sweeps": {
            criterion: swept(logits, labels, t, criterion, spent, times)
            for criterion, t in thresholds.items()
        },
    }
    return found if times is None else found | {"milliseconds": times.mean(1).tolist()}


def swept(logits, labels, thresholds, criterion, spent, times):
    """A sweep as lists, with the milliseconds of recording until the answer if they are known."""
    sweep = early_exit.sweep(logits, labels, thresholds, criterion, spent)
    found = {name: values.tolist() for name, values in sweep._asdict().items()}
    if times is not None:
        timed = early_exit.sweep(logits, labels, thresholds, criterion, times)
        found["milliseconds"] = timed.average_time_steps.tolist()
    return found


def evaluate(experiment, variables):
    """Running logits [T, B, K] and labels [B] of the whole evaluation split."""
    with loader.eval_batches(
        experiment.eval_source, experiment.preprocess, experiment.loader_options
    ) as batches:
        return early_exit.running_logits_of(
            experiment.model, variables, batches, experiment.normalization
        )


def draw(results):
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for i, (name, result) in enumerate(results.items()):
        for criterion, sweep in result["sweeps"].items():
            x, y = np.array(sweep["average_time_steps"]), 100 * np.array(sweep["accuracy"])
            order = np.argsort(x)
            label = f"{name}: exit by {criterion}"
            axes.plot(x[order], y[order], MARKERS[criterion], color=f"C{i}", ms=3, label=label)
        end = result["no_exit"]
        axes.plot(end["average_time_steps"], 100 * end["accuracy"], "*", color=f"C{i}", ms=14)
        axes.plot([], [], "*", color=f"C{i}", ms=10, label=f"{name}: schedule alone, no exit")
    axes.set_xlabel("average time steps of a layer")
    axes.set_ylabel("accuracy / %")
    best = 100 * max(result["no_exit"]["accuracy"] for result in results.values())
    axes.set_ylim(best - SHOWN, min(best + 1, 100.2))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(results), fontsize=8, frameon=False)
    return figure


def print_table(results):
    for name, result in results.items():
        end, times = result["no_exit"], result.get("milliseconds")
        steps = f"{end['average_time_steps']:.3f} steps"
        print(f"{name}: no exit {end['accuracy']:.4f} at {steps}{until(times and times[-1])}")
        after = (
            result["steps_spent"],
            result["accuracy_after_each_step"],
            *([times] if times else []),
        )
        for step, (spent, accuracy, *time) in enumerate(zip(*after, strict=True), start=1):
            print(
                f"  all images stop after step {step}: {accuracy:.4f} at {spent:.3f} steps"
                f"{until(*time)}"
            )
        for criterion, sweep in result["sweeps"].items():
            rows = list(zip(*sweep.values(), strict=True))
            for t, accuracy, steps, *time in rows[:: THRESHOLDS // 8]:
                print(f"  {criterion} {t:.4f}: {accuracy:.4f} at {steps:.3f} steps{until(*time)}")


def until(milliseconds=None):
    """How a line goes on where it is known how much of a recording an answer needs."""
    return "" if milliseconds is None else f", {milliseconds:.1f} ms of recording"


if __name__ == "__main__":
    main()
