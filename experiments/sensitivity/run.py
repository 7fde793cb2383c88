"""How much each module needs its time steps: python run.py WORKDIR OUT [--examples=N].

Only one module (the patch embedding, or a block's attention or MLP) is cut to its first k time
steps, k = 0 to T; all others follow the learned schedule, or use all steps. Writes
OUT/sensitivity.json and OUT/sensitivity.png; with OUT=WORKDIR the run's report shows the figure.
"""

import argparse
import json

import jax
import numpy as np
from matplotlib.figure import Figure

from snnvit_jax import layer_names
from snnvit_jax.common.arguments import output_folder, whole
from snnvit_jax.report import figures
from snnvit_jax.runs import analysis
from snnvit_jax.time_steps.schedule import TimeStepSchedule


def measure(experiment, variables):
    """Returns the accuracy with each module cut to each number of steps, as a dictionary.

    Args:
      experiment: of a run, from `analysis.open_run`.
      variables: of its model.
    """
    names = layer_names(experiment.model, experiment.image_shape[-1])
    learned = TimeStepSchedule.from_variables(jax.device_get(variables), names)
    starts = {"learned": learned, "all": analysis.all_steps(learned)}
    modules, T = list(learned.modules), learned.time_steps
    schedules = [
        analysis.cut(start, module, steps)
        for start in starts.values()
        for module in modules
        for steps in range(T + 1)
    ]
    found = analysis.accuracies(experiment, variables, [*starts.values(), *schedules])
    cuts = np.reshape(found[len(starts) :], (len(starts), len(modules), T + 1))
    return {
        "time_steps": T,
        "examples": len(experiment.eval_source),
        "split": experiment.eval_source.split,
        "learned_time_steps": learned.modules,
        "uncut": dict(zip(starts, found, strict=False)),
        "cut": {
            start: {m: row.tolist() for m, row in zip(modules, rows, strict=True)}
            for start, rows in zip(starts, cuts, strict=True)
        },
    }


def draw(result):
    """Draws the accuracies of `measure`: modules by number of steps kept, for both schedules.

    Args:
      result: from `measure`.

    Returns:
      A matplotlib figure.
    """
    T, titles = result["time_steps"], {"learned": "learned schedule", "all": "all steps"}
    modules = list(result["learned_time_steps"])
    size = (1.5 + 0.6 * (T + 1), 2 * (0.25 * len(modules) + 0.75))
    figure = Figure(figsize=size, layout="constrained")
    for place, (start, cuts) in enumerate(result["cut"].items(), start=1):
        axes = figure.add_subplot(2, 1, place)
        values = 100 * np.array([cuts[module] for module in modules])
        figures.fill_cells(axes, values, lambda v: f"{v:.1f}", low=float(values.min()))
        axes.set_yticks(range(len(modules)), modules)
        axes.set_xticks(range(T + 1))
        axes.set_xlabel("time steps kept")
        axes.set_title(f"others: {titles[start]}, {100 * result['uncut'][start]:.1f} %", loc="left")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", help="or a trained network: pretrained:NAME")
    parser.add_argument("out", type=output_folder)
    parser.add_argument(
        "--examples", type=whole(1), help="look only at N held-out examples, evenly spaced"
    )
    parser.add_argument("--data_dir", help="folder of the data set, which a trained network needs")
    args = parser.parse_args()
    try:
        run = analysis.open_run(args.workdir, args.examples, args.data_dir)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    result = measure(*run)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "sensitivity.json").write_text(json.dumps(result, indent=1) + "\n")
    with figures.style():
        (args.out / "sensitivity.png").write_bytes(figures.as_png(draw(result)))
    print(f"wrote sensitivity.json and sensitivity.png in {args.out}")


if __name__ == "__main__":
    main()
