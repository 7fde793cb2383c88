"""The tables of report.html, as HTML.

Cells of the class "wide" are left out on a narrow screen, so that no table scrolls sideways.
"""

import html
import json
import re

from snnvit_jax.common.hints import AGAINST_SILENCE
from snnvit_jax.energy.tables import mean_rate


def table(head, rows):
    """Returns an HTML table; a column whose heading begins with ">" holds numbers.

    Args:
      head: headings; one that begins with "~" marks a column left out on a narrow screen.
      rows: sequences of text, one for each column.
    """
    classes = [" ".join(c for sign, c in (("~", "wide"), (">", "n")) if sign in h) for h in head]

    def line(cells, tag):
        cells = zip(classes, cells, strict=True)
        return "".join(f'<{tag} class="{c}">{_breakable(cell)}' for c, cell in cells)

    top = line([h.strip("~> ") for h in head], "th")
    body = "".join(f"<tr>{line(row, 'td')}\n" for row in rows)
    return f"<table><thead><tr>{top}</thead><tbody>{body}</tbody></table>"


def modules(schedule):
    """Returns the table of each module's mean number of time steps.

    Args:
      schedule: a `TimeStepSchedule`.
    """
    rows = [(name, f"{steps:.2f}") for name, steps in schedule.modules.items()]
    return _section("Time steps of each module", table(("module", ">mean over layers"), rows))


def silent_and_saturated(result):
    """Returns the list of layers that never fire, or always; nothing if there are none.

    Args:
      result: an `evaluation.Evaluation`.
    """
    rows = [(name, "never") for name in result.dead_layers]
    rows += [(name, "always, at some step") for name in result.saturated_layers]
    if not rows:
        return ""
    hint = f"<p>{AGAINST_SILENCE.capitalize()}.</p>" if result.dead_layers else ""
    body = table(("layer", "fires"), rows) + hint
    return _section("Layers that carry no information", body)


def energy_totals(energy):
    """Returns operations and energy of one image under each convention, and a plain transformer.

    Args:
      energy: an `energy.EnergyReport`.
    """
    cost = energy.accounting
    reports = {
        "integers accumulate": energy.under(integers="accumulate"),
        "integers multiply": energy.under(integers="multiply"),
    }
    repeated = {
        f"{name}, embedding at every step": report.under(repeat_embedding=True)
        for name, report in reports.items()
    }
    plain = energy.plain_microjoule
    rows = [
        (name, _count(r.accumulates), _count(r.macs), three_digits(r.microjoule), _share(r, plain))
        for name, r in (reports | repeated).items()
    ]
    rows.append(("plain transformer", "0", _count(energy.plain_macs), three_digits(plain), "100 %"))
    head = ("convention", "~>additions", "~>multiply-adds", ">µJ", ">of plain")
    return _section(
        "Operations and energy of one image",
        f"<p>Counted from all spikes of the held-out split: {cost.ac:g} pJ for an addition caused "
        f"by a spike, {cost.mac:g} pJ for a multiply-add (32-bit floating point, 45 nm). Published "
        "figures differ in whether small integers of the residual stream add or multiply, and in "
        "whether the embedding of a static image counts once, as it is computed, or at every time "
        "step. The plain transformer has the same shapes, one time step and softmax attention. "
        "Normalisation, pooling and residual additions are not counted.</p>"
        + table(head, rows)
        + f"<p>Besides, {_count(energy.membrane_updates)} membrane updates, "
        f"{three_digits(energy.membrane_microjoule)} µJ, which published figures leave out.</p>"
        + _remarks(energy),
    )


def _remarks(energy):
    """What a low figure may come from: layers that never fire, and steps nothing depends on."""
    silent, found = energy.silent_layers, ""
    if silent:
        found += (
            f"<p>{len(silent)} of {len(energy.neurons)} layers never fire, and what follows them "
            f"costs nothing: {', '.join(map(_breakable, silent))}.</p>"
        )
    if energy.arriving > energy.accumulates:
        found += (
            f"<p>Counted is what the deployed program computes: of {_count(energy.arriving)} "
            f"additions that would arrive, {_count(energy.accumulates)} have an effect.</p>"
        )
    return found


def verdict(energy):
    """Returns what every operand of every convolution and product was seen to be.

    Args:
      energy: an `energy.EnergyReport`.
    """
    others = energy.not_binary
    spikes = sum(layer.kind == "spikes" for layer in energy.layers.values())
    integers = sum(layer.kind == "integers" for layer in energy.layers.values())
    rows = [
        (name, x.kind, f"{100 * (x.others if x.kind == 'real' else x.integers):.3g} %")
        for name, x in others.items()
    ]
    listed = table(("operand", "values", ">not 0 or 1"), rows) if rows else ""
    added = sum(bool(layer.shape.added) for layer in energy.layers.values())
    if added:
        listed = (
            f"<p>{added} products add real numbers, which one of their operands holds, where the "
            "other has a spike: that costs additions, as weights do.</p>" + listed
        )
    return _section(
        "Is it accumulate-only?",
        f"<p>Of {len(energy.layers)} convolutions and products, {spikes} saw nothing but 0 and 1 "
        f"in {energy.examples:,} images, {integers} also small integers, and "
        f"{len(energy.not_spiking)} real numbers.</p>" + listed,
    )


def layers(energy):
    """Returns operations and energy of each layer under both conventions.

    Args:
      energy: an `energy.EnergyReport`.
    """
    multiplying = energy.under(integers="multiply").layers
    rows = [
        (
            name,
            "" if layer.kind == "real" else f"{mean_rate(layer):.3f}",
            f"{_count(layer.macs)} MAC" if layer.macs else f"{_count(layer.accumulates.sum())} AC",
            three_digits(layer.picojoule * 1e-3),
            three_digits(multiplying[name].picojoule * 1e-3),
        )
        for name, layer in energy.layers.items()
    ]
    head = ("layer", "~>mean input", ">operations", ">nJ", ">if integers multiply")
    return _section(
        "Layer by layer",
        "<p>Of one image, over all time steps: additions (AC) or multiply-adds (MAC).</p>"
        + table(head, rows)
        + '<p class="small">Every count for each time step is in energy.json.</p>',
    )


def deployment(path):
    """Returns FLOPs and time of the deployed model beside the masked one, or "" if not measured.

    Args:
      path: of the JSON file that experiments/deploy writes: a list of measurements {"programs":
        {name: {"flops", "seconds"} of a batch}, the first one to compare with, "flops" of others
        None where a runtime does not count them, "batch_size", and other facts}, or one of them.

    Raises:
      ValueError: if the file holds something else.
    """
    if not path.exists():
        return ""
    try:
        content = json.loads(path.read_text())
        measured = [content] if isinstance(content, dict) else list(content)
        tables = [_measurement(**measurement) for measurement in measured]
        if not tables:
            raise ValueError("no measurement")
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(
            f"{path} does not hold measured programs ({error!r}); measure again or remove it"
        ) from error
    return _section(
        "The deployed model",
        "<p>As compiled; time steps that have no effect are not in the program.</p>"
        + "".join(tables),
    )


def _measurement(*, programs, batch_size, **others):
    """The table of one batch size, and under it what else was measured."""
    if not programs:
        raise ValueError("no programs")
    head = ("program", "~>MFLOPs an image", ">FLOPs", "~>ms a batch", ">time")
    facts = "; ".join(f"{k}: {v}" for k, v in _facts({"batch_size": batch_size} | others))
    return (
        table(head, _program_rows(programs, batch_size))
        + f'<p class="small">{html.escape(facts)}</p>'
    )


def three_digits(number):
    """Returns a number with at least three digits, without an exponent unless it is tiny.

    Args:
      number: >= 0.
    """
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _program_rows(programs, images):
    first = next(iter(programs.values()))
    return [
        (
            name,
            *_counted(cost["flops"], first["flops"], images),
            three_digits(1e3 * cost["seconds"]),
            f"{100 * cost['seconds'] / first['seconds']:.1f} %",
        )
        for name, cost in programs.items()
    ]


def _counted(flops, reference, images):
    """Cells of a program's operations; empty where they are not known."""
    if flops is None:
        return "", ""
    return three_digits(flops / images / 1e6), f"{100 * flops / reference:.1f} %"


def _facts(content):
    """Yields (name, value) of everything in nested dictionaries."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _facts(value)
        else:
            number = isinstance(value, float)
            yield key.replace("_", " "), f"{value:.4g}" if number else value


def _breakable(text):
    """Escaped text in which names of layers and settings may be broken, between their parts."""
    return re.sub(r"/|(?<=[a-z])\.(?=[a-z])", r"\g<0><wbr>", html.escape(str(text)))


def _section(title, body):
    return f"<section><h2>{title}</h2>{body}</section>"


def _count(number):
    """A number of operations with about three digits: 1.23 M."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return three_digits(number / size) + letter
    return three_digits(number)


def _share(report, plain):
    return f"{100 * report.microjoule / plain:.1f} %"
