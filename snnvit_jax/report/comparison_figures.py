"""Figures that show several runs over each other."""

import matplotlib
from matplotlib.figure import Figure

from snnvit_jax.report.figures import GRID, INK, as_label

_PANELS = (
    ("eval_accuracy", "held-out accuracy"),
    ("loss", "training loss"),
    ("average_time_steps", "time steps"),
)


def draw_curves(runs, columns=3):
    """Draws held-out accuracy, training loss and time steps over the epochs, a line for each run.

    Args:
      runs: a list of `comparison.Compared`.
      columns: how many panels side by side, 1 to 3.

    Returns:
      A matplotlib figure.
    """
    rows = -(-len(_PANELS) // columns)
    figure = Figure(figsize=(3 * columns + (columns == 1), 2.6 * rows + 0.5), layout="constrained")
    for place, (key, title) in enumerate(_PANELS, start=1):
        axes = figure.add_subplot(rows, columns, place)
        for run, colour in zip(runs, colours(len(runs)), strict=True):
            _plot(axes, run, key, colour, label=as_label(run.name) if place == 1 else None)
        axes.set_title(title, loc="left")
        axes.set_xlabel("epoch")
        axes.grid(linewidth=0.6)
        if key == "average_time_steps":
            axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper left", ncols=columns, frameon=False)
    return figure


def draw_frontier(runs, columns=2):
    """Draws accuracy against average time steps and against energy, a point for each run.

    Args:
      runs: a list of `comparison.Compared`.
      columns: how many panels side by side, 1 or 2.

    Returns:
      A matplotlib figure.
    """
    costs = {"average time steps": [run.schedule.average for run in runs]}
    if all(run.energy is not None for run in runs):
        costs["energy of one image in µJ"] = [run.microjoule("accumulate") for run in runs]
    rows = -(-len(costs) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows + 0.5), layout="constrained")
    accuracies = [100 * run.summary["accuracy"] for run in runs]
    for place, (title, cost) in enumerate(costs.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        best = frontier(cost, accuracies)
        axes.plot([cost[i] for i in best], [accuracies[i] for i in best], color=GRID, zorder=1)
        for number, colour in enumerate(colours(len(runs))):
            label = as_label(runs[number].name) if place == 1 else None
            axes.scatter(
                cost[number], accuracies[number], color=colour, s=36, label=label, zorder=2
            )
        axes.set_xlabel(title)
        axes.set_ylabel("accuracy in %")
        axes.grid(linewidth=0.6)
    figure.legend(loc="outside upper left", ncols=columns, frameon=False)
    return figure


def frontier(costs, values):
    """Returns the indices of the points that no other one beats, by ascending cost.

    A point is beaten by one that costs no more and is worth more, or costs less and is worth as
    much; of equal points the first counts.

    Args:
      costs: numbers, less is better.
      values: numbers, as many, more is better.
    """
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -values[i], i))
    found = []
    for i in order:
        if not found or values[i] > values[found[-1]]:
            found.append(i)
    return found


def colours(count):
    """Returns as many colours that can be told apart, as long as there are not more than ten.

    Args:
      count: >= 1.
    """
    palette = matplotlib.colormaps["tab10" if count <= 10 else "turbo"]
    return [palette(i if count <= 10 else i / (count - 1)) for i in range(count)]


def _plot(axes, run, key, colour, label):
    points = [(line["epoch"], line[key]) for line in run.lines if line.get(key) is not None]
    x, y = zip(*points, strict=True) if points else ((), ())
    mark = "o" if len(points) == 1 else None
    axes.plot(x, y, color=colour, label=label, linewidth=1.5, marker=mark, markeredgecolor=INK)
