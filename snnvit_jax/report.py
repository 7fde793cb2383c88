"""The figures of a run and its self-contained report.html."""

import base64
import html
import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure

INK, ACCENT, SECOND, GRID = "#1b2733", "#c2410c", "#0f766e", "#d8dee4"
MOST_CLASSES_NAMED = 30

_STYLE = {
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


def write(workdir, result, class_names, config):
    """Draws every figure as PNG in the run's folder and writes report.html with all of them inside.

    Args:
      workdir: a `Workdir`.
      result: an `evaluation.Evaluation`.
      class_names: one for each class.
      config: the run's configuration.
    """
    with matplotlib.rc_context(_STYLE):
        figures = {
            "time_steps": draw_schedule(result.schedule),
            "firing_rates": draw_firing_rates(result.firing_rates),
            "energy": draw_energy(result.energy),
            "curves": draw_curves(workdir.read_metrics()),
            "confusion": draw_confusion(result.confusion, class_names),
        }
        images = {name: _as_png(figure) for name, figure in figures.items()}
    for name, png in images.items():
        (workdir.path / f"{name}.png").write_bytes(png)
    workdir.report.write_text(_page(result, images, config))


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
    top = max(values.max(), 1e-9)
    axes.imshow(values, cmap="YlOrBr", vmin=0, vmax=top, aspect="auto")
    _separate_cells(axes, values.shape)
    for (row, step), value in np.ndenumerate(values):
        colour = "white" if value > 0.6 * top else INK
        text = "·" if value == 0 else f"{value:.1f}"
        axes.text(step, row, text, ha="center", va="center", color=colour, fontsize=7.5)
    axes.set_title(f"{values.mean():.1f} % on average", loc="left")
    return figure


def draw_energy(energy):
    """Draws the energy of each layer for one image, split into accumulates and the rest.

    Args:
      energy: an `energy.EnergyReport`.

    Returns:
      A matplotlib figure.
    """
    names = list(energy.layers)
    nanojoule = [layer.picojoule * 1e-3 for layer in energy.layers.values()]
    colours = [ACCENT if layer.macs else SECOND for layer in energy.layers.values()]
    figure = Figure(figsize=(6, 0.22 * len(names) + 1.1), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(range(len(names)), nanojoule, color=colours)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("energy of one image in nJ (orange: multiply-accumulates)")
    axes.set_title(f"{energy.microjoule:.3g} µJ an image", loc="left")
    axes.grid(axis="x", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def draw_curves(lines):
    """Draws loss, accuracy and average time steps over the epochs.

    Args:
      lines: of metrics.jsonl, as dictionaries.

    Returns:
      A matplotlib figure.
    """
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    panels = (("loss", "loss"), ("accuracy", "accuracy"), ("average_time_steps", "time steps"))
    for place, (key, title) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, 3, place)
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
        places = range(len(class_names))
        axes.set_xticks(places, class_names, rotation=90 if len("".join(class_names)) > 30 else 0)
        axes.set_yticks(places, class_names)
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                axes.text(column, row, count, ha="center", va="center", fontsize=7)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    correct = np.trace(confusion)
    axes.set_title(f"{correct} of {confusion.sum()} correct", loc="left")
    return figure


def _layer_figure(layers, time_steps):
    figure = Figure(figsize=(1.9 + 0.55 * time_steps, 0.22 * len(layers) + 0.9))
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    axes.set_yticks(range(len(layers)), list(layers))
    axes.set_xticks(range(time_steps), range(1, time_steps + 1))
    axes.set_xlabel("time step")
    return figure, axes


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


def _as_png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    return buffer.getvalue()


_CAPTIONS = {
    "time_steps": (
        "What each layer learned",
        "A filled cell is a time step at which the layer emits spikes; in an empty one it is "
        "silent. The number is the layer's count of active steps. Layers in forward order.",
    ),
    "firing_rates": (
        "How often neurons fire",
        "Share of a layer's neurons that emit a spike at a time step, in percent, over the whole "
        "held-out split and after the mask (·: none).",
    ),
    "energy": (
        "Where the energy goes",
        "Additions caused by spikes, counted from recorded spikes over the whole held-out split "
        "(0.9 pJ each), and multiply-accumulates where the input is not spikes (4.6 pJ each; "
        "45 nm). Normalisation, pooling and membrane updates are not counted.",
    ),
    "curves": ("How it was learned", "Training values with label smoothing and augmentation."),
    "confusion": (
        "Which classes are confused",
        "Counts of held-out examples by label and prediction; mistakes are coloured.",
    ),
}

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1b2733; max-width: 56rem;
       margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin: 2rem 0 .3rem; }}
p {{ margin: .3rem 0 .8rem; }} img {{ max-width: 100%; height: auto; }}
dl {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1rem; }}
dt {{ font-size: .8rem; color: #5b6875; }} dd {{ margin: 0; font-size: 1.3rem; }}
table {{ border-collapse: collapse; }} td, th {{ padding: .15rem 1rem .15rem 0; text-align: left; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; }}
section {{ break-inside: avoid; }}
</style>
<h1>{title}</h1>
<dl>{facts}</dl>
{sections}
<section><h2>Time steps of each module</h2><table>{modules}</table></section>
<details><summary>Configuration</summary><pre>{config}</pre></details>
</html>
"""


def _page(result, images, config):
    facts = {
        f"accuracy on {result.split}": f"{100 * result.accuracy:.2f} %",
        "examples": f"{result.examples:,}",
        "average time steps": f"{result.schedule.average:.2f} of {result.schedule.time_steps}",
        "firing rate": f"{100 * result.firing_rate:.1f} %",
        "energy of one image": f"{result.energy.microjoule:.3g} µJ",
    }
    rows = "".join(
        f"<tr><td>{html.escape(name)}<td>{steps:.2f}"
        for name, steps in result.schedule.modules.items()
    )
    return _PAGE.format(
        title=html.escape(f"{config.model.name} on {config.data.name}"),
        facts="".join(f"<div><dt>{html.escape(k)}<dd>{v}</div>" for k, v in facts.items()),
        sections="".join(_section(name, png) for name, png in images.items()),
        modules=rows,
        config=html.escape(config.to_json_best_effort(indent=1)),
    )


def _section(name, png):
    title, caption = _CAPTIONS[name]
    data = base64.b64encode(png).decode()
    return (
        f"<section><h2>{title}</h2><p>{caption}</p>"
        f'<img alt="{title}" src="data:image/png;base64,{data}"></section>\n'
    )
