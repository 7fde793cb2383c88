"""report.html: one self-contained page that reads on paper and on a phone."""

import base64
import html
import struct

from ml_collections import config_dict

from snnvit_jax.report import page_tables

# file name without .png -> (title, caption); those of a finished run, then what experiments add
FIGURES = {
    "time_steps": (
        "What each layer learned",
        "A filled cell is a time step at which the layer emits spikes; in an empty one it is "
        "silent. The number is the layer's count of active steps. Layers in forward order.",
    ),
    "firing_rates": (
        "How often neurons fire",
        "Share of a layer's neurons that emit something at a time step, in percent, over the whole "
        "held-out split and after the mask (·: none).",
    ),
    "energy": (
        "Where the energy goes",
        "Convolutions and products in forward order. A grey line is the same layer in a plain "
        "vision transformer; a hollow mark is what it costs if integer inputs multiply.",
    ),
    "curves": ("How it was learned", "Training values with label smoothing and augmentation."),
    "confusion": (
        "Which classes are confused",
        "Counts of held-out examples by label and prediction; mistakes are coloured.",
    ),
    "recordings": (
        "What the model sees",
        "Held-out recordings, one of each of the first classes, as frames: a row for each of them.",
    ),
    "early_exit": (
        "Stopping early",
        "Accuracy against the average number of time steps if each image stops as soon as the "
        "prediction is certain enough, beside the learned schedule.",
    ),
    "activation_histograms": (
        "Activations beside those of an ANN",
        "How the mean spikes of each block over the time steps are distributed, and the "
        "activations of the same architecture with ReLU.",
    ),
    "sensitivity": (
        "How much each module needs its time steps",
        "Accuracy in percent if only that module is cut to its first k time steps.",
    ),
}
ADDED = ("recordings", "early_exit", "activation_histograms", "sensitivity")

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1b2733; background: white; max-width: 52rem;
       margin: 1.5rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .3rem; }}
p {{ margin: .3rem 0 .8rem; }}
figure {{ margin: 0; }}
img {{ display: block; max-width: 100%; height: auto; }}
dl {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(7.4rem, 1fr)); gap: 1rem;
     align-items: end; }}
dt {{ font-size: .8rem; color: #5b6875; }}
dd {{ margin: 0; font-size: 1.25rem; }}
table {{ border-collapse: collapse; margin: .5rem 0 1rem; font-size: .9rem; }}
td, th {{ padding: .2rem 1.2rem .2rem 0; text-align: left; vertical-align: top;
         border-bottom: 1px solid #e6eaee; }}
th {{ font-weight: 600; color: #5b6875; }}
.n {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}
td:last-child, th:last-child {{ padding-right: 0; }}
.small {{ font-size: .8rem; color: #5b6875; }}
pre {{ columns: 20rem; column-gap: 2rem; white-space: pre-wrap; overflow-wrap: anywhere;
      font-size: .75rem; line-height: 1.4; }}
@media (max-width: 40rem) {{
  table {{ width: 100%; font-size: .8rem; }}
  td, th {{ padding-right: .5rem; }}
  th.n {{ white-space: normal; }}
  .wide {{ display: none; }}
}}
@media print {{
  @page {{ margin: 16mm 14mm; }}
  body {{ font-size: 10pt; max-width: none; margin: 0; padding: 0; }}
  h2 {{ break-after: avoid; margin-top: 1.4rem; }}
  .figure, tr, dl, p, pre {{ break-inside: avoid; }}
  h2 + p {{ break-after: avoid; }}
  img {{ max-height: 21cm; max-width: min(100%, 15cm); print-color-adjust: exact; }}
  thead {{ display: table-header-group; }}
}}
</style>
<h1>{title}</h1>
<dl>{facts}</dl>
{sections}
<section><h2>Configuration</h2><pre>{config}</pre></section>
</html>
"""


def render(result, images, narrow, config, folder):
    """Returns the report of a run as an HTML page.

    Args:
      result: an `evaluation.Evaluation`.
      images: {figure name: PNG bytes} of `time_steps`, `firing_rates`, `energy`, `curves` and
        `confusion`.
      narrow: {figure name: PNG bytes to show on a narrow screen instead}.
      config: the run's configuration.
      folder: of the run; what experiments left there is shown too. The page says so if something of
        that cannot be shown: the run itself is none the worse for it.
    """
    shown = {name: _figure(name, png, narrow.get(name)) for name, png in images.items()}
    shown |= {name: _added(name, folder / f"{name}.png") for name in ADDED}
    sections = (
        *(shown["time_steps"], page_tables.modules(result.schedule), shown["firing_rates"]),
        page_tables.silent_and_saturated(result),
        *_energy(result.energy, shown.get("energy")),
        _deployment(folder / "deployed.json"),
        *(shown[name] for name in (*ADDED, "curves", "confusion")),
    )
    facts = _facts(result).items()
    return _PAGE.format(
        title=html.escape(f"{config.model.name} on {config.data.name}"),
        facts="".join(f"<div><dt>{html.escape(k)}<dd>{v}</div>" for k, v in facts),
        sections="\n".join(sections),
        config=html.escape("\n".join(f"{k} = {v}" for k, v in _flat(config))),
    )


def _energy(energy, figure):
    """The sections on energy; none if it was not counted."""
    if energy is None:
        return ()
    totals, verdict = page_tables.energy_totals(energy), page_tables.verdict(energy)
    return totals, figure, verdict, page_tables.layers(energy)


def _facts(result):
    energy, schedule = result.energy, result.schedule
    costs = {"energy of one image": "not counted"}
    if energy is not None:
        costs = {
            "energy of one image": f"{energy.microjoule:.3g} µJ",
            "as a plain transformer": f"{energy.plain_microjoule:.3g} µJ",
        }
    return {
        f"accuracy on {result.split}": f"{100 * result.accuracy:.2f} %",
        "examples": f"{result.examples:,}",
        "average time steps": f"{schedule.average:.2f} of {schedule.time_steps}",
        "firing rate": f"{100 * result.firing_rate:.1f} %",
        **costs,
    }


def _deployment(path):
    try:
        return page_tables.deployment(path)
    except (ValueError, OSError) as error:
        return _not_shown("The deployed model", error)


def _added(name, path):
    """The figure that an experiment left; "" if there is none."""
    if not path.exists():
        return ""
    try:
        return _figure(name, path.read_bytes(), None)
    except (ValueError, OSError) as error:
        return _not_shown(FIGURES[name][0], f"{path} is no figure ({error}); draw it again")


def _not_shown(title, reason):
    return f"<section><h2>{title}</h2><p>Not shown: {html.escape(str(reason))}</p></section>"


def _figure(name, png, narrow):
    title, caption = FIGURES[name]
    source = (
        "" if narrow is None else f'<source media="(max-width: 40rem)" srcset="{_data(narrow)}">'
    )
    return (
        f'<section class="figure"><h2>{title}</h2><p>{caption}</p><figure><picture>{source}'
        f'<img width="{_width(png)}" alt="{title}" src="{_data(png)}"></picture></figure></section>'
    )


def _width(png):
    """Width on a screen in pixels: figures of 150 dots an inch at about the size of the text."""
    if not png.startswith(b"\x89PNG\r\n\x1a\n") or len(png) < 20:
        raise ValueError(f"not a PNG file, begins with {png[:8]!r}")
    (pixels,) = struct.unpack(">I", png[16:20])
    return round(0.75 * pixels)


def _data(png):
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _flat(config, prefix=""):
    """Yields (key, value) of every leaf of a configuration."""
    for key, value in config.items():
        if isinstance(value, config_dict.ConfigDict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
