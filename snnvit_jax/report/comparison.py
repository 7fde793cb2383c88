"""The page that shows finished runs beside each other."""

import dataclasses
import html

from ml_collections import config_dict

from snnvit_jax.report import comparison_figures, figures, layout, page_tables
from snnvit_jax.time_steps.schedule import TimeStepSchedule


@dataclasses.dataclass(frozen=True)
class Compared:
    """What is compared of one run.

    Attributes:
      name: what tells it apart from the others.
      network: what it is, in words.
      config: its configuration.
      summary: of its summary.json.
      energy: totals by convention of its energy.json; None if nothing was counted.
      schedule: what it learned.
      lines: of its metrics.jsonl.
      flops: of its deployed program, for one image.
      milliseconds: that the deployed program takes for one image of a batch.
    """

    name: str
    network: str
    config: config_dict.ConfigDict
    summary: dict
    energy: dict | None
    schedule: TimeStepSchedule
    lines: list[dict]
    flops: float
    milliseconds: float

    def microjoule(self, integers):
        """Returns the energy of one image, or None if it was not counted.

        Args:
          integers: "accumulate" or "multiply", the convention.
        """
        return None if self.energy is None else self.energy[integers]["microjoule"]


MOST_WITHOUT_FRONTIER = 3  # so few runs are read from the table


def render(runs, differences, batch_size, device):
    """Returns the page of a comparison.

    Args:
      runs: a list of `Compared`.
      differences: {setting: its value in each run}, of those in which they differ.
      batch_size: of the calls that were timed.
      device: that they were timed on.
    """
    with figures.style():
        sections = [
            layout.section("What they are", _networks(runs)),
            layout.section("What they reach", _reached(runs)),
            layout.section("What they cost when deployed", _costs(runs, batch_size, device)),
            *_frontier(runs),
            _curves(runs),
            _schedules(runs),
            layout.section("Settings that differ", _settings(runs, differences)),
        ]
    return layout.document(f"{len(runs)} runs beside each other", "\n".join(sections))


def text(runs):
    """Returns the figures of a comparison as lines of text.

    Args:
      runs: a list of `Compared`.
    """
    head = ("run", "accuracy", "time steps", "µJ", "µJ multiply", "MFLOPs", "ms an image")
    rows = [
        head,
        *(
            (run.name, *_figures(run), _digits(run.flops / 1e6), _digits(run.milliseconds))
            for run in runs
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (zip(row, widths, strict=True) for row in rows)
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in line).rstrip() for line in lines
    )


def _figures(run):
    return (
        f"{100 * run.summary['accuracy']:.2f} %",
        f"{run.schedule.average:.2f} of {run.schedule.time_steps}",
        _digits(run.microjoule("accumulate")),
        _digits(run.microjoule("multiply")),
    )


def _digits(number):
    return "not counted" if number is None else page_tables.three_digits(number)


def _networks(runs):
    rows = [
        (run.name, run.network, run.config.data.name, f"{run.summary['epochs']:.4g}")
        for run in runs
    ]
    return page_tables.table(("run", "network", "data", ">epochs"), rows)


def _reached(runs):
    rows = [(run.name, *_figures(run)) for run in runs]
    head = ("run", ">accuracy", ">time steps", ">µJ", ">µJ if integers multiply")
    splits = sorted({f"{run.summary['examples']:,} of {run.summary['split']}" for run in runs})
    return page_tables.table(head, rows) + (
        f'<p class="small">Held-out examples: {html.escape("; ".join(splits))}. Energy of one '
        "image under both published conventions for small integers.</p>"
    )


def _costs(runs, batch_size, device):
    first = runs[0]
    rows = [
        (
            run.name,
            _digits(run.flops / 1e6),
            f"{100 * run.flops / first.flops:.0f} %",
            _digits(run.milliseconds),
            f"{100 * run.milliseconds / first.milliseconds:.0f} %",
        )
        for run in runs
    ]
    head = ("run", ">MFLOPs an image", "~>of the first", ">ms an image", ">of the first")
    return page_tables.table(head, rows) + (
        f'<p class="small">As compiled for {html.escape(device)}; time: median of calls with '
        f"{batch_size} images, the programs in turn.</p>"
    )


def _frontier(runs):
    if len(runs) <= MOST_WITHOUT_FRONTIER:
        return []
    wide, narrow = (figures.as_png(comparison_figures.draw_frontier(runs, n)) for n in (2, 1))
    title = "Accuracy against cost"
    caption = "<p>The line joins the runs that no other one beats in both.</p>"
    return [layout.section(title, caption + layout.picture(wide, title, narrow), "figure")]


def _curves(runs):
    wide, narrow = (figures.as_png(comparison_figures.draw_curves(runs, n)) for n in (3, 1))
    title = "How they learned"
    return layout.section(title, layout.picture(wide, title, narrow), "figure")


def _schedules(runs):
    panels = []
    for run in runs:
        png = figures.as_png(figures.draw_schedule(run.schedule))
        name = html.escape(run.name)
        panels.append(f"<div><h3>{name}</h3>{layout.picture(png, f'Schedule of {name}')}</div>")
    caption = "<p>A filled cell is a time step at which a layer emits.</p>"
    body = f'{caption}<div class="beside">{"".join(panels)}</div>'
    return layout.section("What their layers learned", body)


def _settings(runs, differences):
    if not differences:
        return "<p>None: they were configured alike.</p>"
    rows = [(key, *(f"{value}" for value in values)) for key, values in differences.items()]
    table = page_tables.table(("setting", *(run.name for run in runs)), rows)
    return f'<div class="scrolled">{table}</div>'
