"""The figures of a run, as matplotlib figures that read on a phone as well as on paper."""

import contextlib
import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure

INK, ACCENT, SECOND, GRID = "#1b2733", "#c2410c", "#0f766e", "#d8dee4"
MOST_CLASSES_NAMED = 30
MOST_LETTERS = 32

_STYLE = {
    "text.usetex": False,  # names are whatever they are
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
}


@contextlib.contextmanager
def style():
    """Draws every figure inside the block in the project's style."""
    with matplotlib.rc_context(_STYLE):
        yield


def as_png(figure):
    """Returns a figure as the bytes of a PNG file.

    Args:
      figure: a matplotlib figure.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    return buffer.getvalue()


def as_label(name):
    """Returns a name as a figure can show it: what cannot be printed escaped, and not too long.

    Args:
      name: any text, even of file names that are none (PEP 383).
    """
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    return shown if len(shown) <= MOST_LETTERS else shown[: MOST_LETTERS - 1] + "…"


def draw_schedule(schedule):
    """Draws the masks: layers by time steps, with each layer's and the model's number of steps.

    Args:
      schedule: a `TimeStepSchedule`.

    Returns:
      A matplotlib figure.
    """
    masks = np.stack(list(schedule.masks.values()))
    figure, axes = _layer_figure(schedule.masks, schedule.time_steps)
    axes.imshow(masks, cmap=_two_colours("#eef1f4", SECOND), vmin=0, vmax=1, aspect="auto")
    _separate_cells(axes, masks.shape)
    for row, steps in enumerate(schedule.layers.values()):
        axes.text(schedule.time_steps - 0.4, row, f"{steps}", va="center", clip_on=False)
    axes.set_title(f"{schedule.average:.2f} of {schedule.time_steps} steps on average", loc="left")
    return figure


def draw_firing_rates(rates):
    """Draws the firing rate of each layer at each time step.

    Args:
      rates: {layer name: [T] in [0, 1]}.

    Returns:
      A matplotlib figure.
    """
    values = 100 * np.stack(list(rates.values()))
    figure, axes = _layer_figure(rates, values.shape[1])
    fill_cells(axes, values, lambda value: "·" if value == 0 else f"{value:.1f}")
    axes.set_title(f"{values.mean():.1f} % on average", loc="left")
    return figure


def fill_cells(axes, values, text, low=0.0):
    """Draws a table of numbers as coloured cells with the numbers in them.

    Args:
      axes: matplotlib axes.
      values: [rows, columns].
      text: function of a value -> what its cell says.
      low: value of the palest colour; the largest value has the darkest.
    """
    top = max(values.max(), low + 1e-9)
    axes.imshow(values, cmap="YlOrBr", vmin=low, vmax=top, aspect="auto")
    _separate_cells(axes, values.shape)
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value - low > 0.6 * (top - low) else INK
        at = {"ha": "center", "va": "center"}
        axes.text(column, row, text(value), color=colour, fontsize=7.5, **at)


def draw_energy(energy):
    """Draws the energy of each layer for one image, on a logarithmic axis.

    Layers that cost accumulates, layers that cost multiply-accumulates, what an integer input costs
    if it multiplies, and the same layer in a plain vision transformer.

    Args:
      energy: an `energy.EnergyReport`.

    Returns:
      A matplotlib figure.
    """
    names = list(energy.layers)
    figure = Figure(figsize=(4.6, 0.2 * len(names) + 1.5), layout="constrained")
    axes = figure.add_subplot()
    series = _energy_series(energy)
    dearest = np.nanmax([values for values, _ in series.values()], axis=0)
    cheapest = np.nanmin([values for values, _ in series.values()], axis=0)
    axes.hlines(range(len(names)), cheapest, dearest, color=GRID, linewidth=1.5, zorder=1)
    for label, (values, look) in series.items():
        axes.scatter(values, range(len(names)), label=label, s=26, **look)
    axes.set_xscale("log")
    _name_ticks(axes.yaxis, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("energy of one image in nJ")
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8)
    axes.grid(axis="x", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def _energy_series(energy):
    """{label: (nJ of each layer, NaN for none, how to draw it)}."""

    def nanojoule(report, wanted):
        layers = report.layers.items()
        return np.array([x.picojoule * 1e-3 if wanted(n, x) else np.nan for n, x in layers])

    multiplying = energy.under(integers="multiply")
    plain = [x.shape.plain_macs * energy.accounting.mac * 1e-3 for x in energy.layers.values()]
    return {
        "accumulates": (nanojoule(energy, _accumulates), {"color": SECOND, "zorder": 3}),
        "multiply-accumulates": (
            nanojoule(energy, lambda _, layer: layer.macs),
            {"color": ACCENT, "zorder": 3},
        ),
        "if integers multiply": (
            nanojoule(multiplying, lambda n, layer: layer.macs and not energy.layers[n].macs),
            {"facecolor": "white", "edgecolor": ACCENT, "zorder": 2},
        ),
        "plain transformer": (np.array(plain), {"color": "#8b97a3", "marker": "|", "zorder": 2}),
    }


def _accumulates(_, layer):
    return layer.picojoule and not layer.macs


def draw_curves(lines, columns=3):
    """Draws loss, accuracy and average time steps over the epochs.

    Args:
      lines: of metrics.jsonl, as dictionaries.
      columns: how many panels side by side, 1 to 3.

    Returns:
      A matplotlib figure.
    """
    rows = -(-3 // columns)
    figure = Figure(figsize=(3 * columns + (columns == 1), 2.6 * rows), layout="constrained")
    panels = (("loss", "loss"), ("accuracy", "accuracy"), ("average_time_steps", "time steps"))
    for place, (key, title) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, place)
        _plot_line(axes, lines, key, "training", SECOND)
        if key != "average_time_steps":
            _plot_line(axes, lines, f"eval_{key}", "held out", ACCENT)
            axes.legend(frameon=False)
        else:
            axes.set_ylim(bottom=0)
        axes.set_title(title, loc="left")
        axes.set_xlabel("epoch")
        axes.grid(linewidth=0.6)
    return figure


def draw_confusion(confusion, class_names):
    """Draws how often each class was taken for each other one, in % of its examples.

    Args:
      confusion: [K, K] counts by (label, prediction).
      class_names: one for each class; left out if there are many.

    Returns:
      A matplotlib figure.
    """
    shares = 100 * confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    # Only mistakes are coloured: the diagonal would outshine them.
    mistakes = np.where(np.eye(len(shares), dtype=bool), np.nan, shares)
    top = max(np.nanmax(mistakes, initial=0), 1e-9)
    image = axes.imshow(mistakes, cmap="Oranges", vmin=0, vmax=top)
    figure.colorbar(image, label="% of the class", shrink=0.8)
    if len(class_names) <= MOST_CLASSES_NAMED:
        names = [as_label(name) for name in class_names]
        _name_ticks(axes.xaxis, names, rotation=90 if len("".join(names)) > 30 else 0)
        _name_ticks(axes.yaxis, names)
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                dark = row != column and shares[row, column] > 0.6 * top
                at = {"ha": "center", "va": "center", "fontsize": 7}
                axes.text(column, row, count, color="white" if dark else INK, **at)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    correct = np.trace(confusion)
    axes.set_title(f"{correct} of {confusion.sum()} correct", loc="left")
    return figure


def _layer_figure(layers, time_steps):
    figure = Figure(figsize=(1.9 + 0.55 * max(time_steps, 3), 0.22 * len(layers) + 0.9))
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    _name_ticks(axes.yaxis, list(layers))
    axes.set_xticks(range(time_steps), range(1, time_steps + 1))
    axes.set_xlabel("time step")
    return figure, axes


def _name_ticks(axis, names, **look):
    """Names the places 0, 1, ... of an axis; "$" in them is no sign of a formula."""
    axis.set_ticks(range(len(names)), names, parse_math=False, **look)


def _separate_cells(axes, shape):
    axes.set_xticks(np.arange(0.5, shape[1] - 1), minor=True)
    axes.set_yticks(np.arange(0.5, shape[0] - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _two_colours(low, high):
    return matplotlib.colors.ListedColormap([low, high])


def _plot_line(axes, lines, key, label, colour):
    points = [(line["epoch"], line[key]) for line in lines if line.get(key) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, label=label, linewidth=1.5)
