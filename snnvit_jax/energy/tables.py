"""An energy report as JSON, complete enough to compute every figure again, and as a table."""

import dataclasses
import json

from snnvit_jax.common import markdown as tables
from snnvit_jax.energy.accounting import CONVENTIONS
from snnvit_jax.neurons import describe


def to_json(report):
    """Returns a report as JSON text.

    `layers` and `neurons` hold what was counted for one image and each time step; `totals` what
    follows from it under each convention. An energy is ac x accumulates + mac x macs.

    Args:
      report: an `EnergyReport`.
    """
    by_convention = {
        name: report.under(integers=name, count_membrane=False, repeat_embedding=False)
        for name in CONVENTIONS
    }
    content = {
        "examples": report.examples,
        "picojoule": {"mac": report.accounting.mac, "ac": report.accounting.ac},
        "totals": {name: _totals(r) for name, r in by_convention.items()},
        "plain_vision_transformer": {
            "macs": report.plain_macs,
            "microjoule": report.plain_microjoule,
        },
        "silent_layers": report.silent_layers,
        "membrane": {
            "updates": report.membrane_updates,
            "microjoule": report.membrane_microjoule,
            "picojoule": {
                name: report.accounting.membrane_update(
                    layer.shape.neuron.update(layer.shape.time_steps)
                )
                for name, layer in report.neurons.items()
            },
        },
        "not_spikes": {
            name: {"kind": x.kind, "integers": x.integers, "others": x.others}
            for name, x in report.not_binary.items()
        },
        "layers": {name: _layer(name, by_convention) for name in report.layers},
        "neurons": {name: _neurons(layer) for name, layer in report.neurons.items()},
    }
    return json.dumps(content, indent=1) + "\n"


def markdown(report):
    """Returns operations and energy of each layer as a Markdown table, totals last.

    Accumulates "8 (of 32)": 8 that something depends on, of 32 that arrive.

    Args:
      report: an `EnergyReport`.
    """
    head = ("layer", "input", "rate", "accumulates", "MAC", "nJ")
    rows = [
        (
            name,
            layer.kind,
            "-" if layer.kind == "real" else f"{mean_rate(layer):.4f}",
            _needed_of(layer.accumulates.sum(), layer.arriving.sum()),
            f"{layer.macs:,}",
            f"{layer.picojoule * 1e-3:.3f}",
        )
        for name, layer in report.layers.items()
    ]
    membrane = f"{report.membrane_microjoule * 1e3:.3f}"
    rows.append(("membrane updates", "", "", f"{report.membrane_updates:,} updates", "", membrane))
    accumulates = _needed_of(report.accumulates, report.arriving)
    total = (accumulates, f"{report.macs:,}", f"{report.microjoule * 1e3:.3f}")
    silent = f" (never fire: {', '.join(report.silent_layers)})" if report.silent_layers else ""
    rows.append((f"total{silent}", "", "", *total))
    return tables.table(head, rows, left=2)


def _needed_of(needed, arriving):
    return f"{needed:,.1f}" if needed == arriving else f"{needed:,.1f} (of {arriving:,.1f})"


def mean_rate(layer):
    """Returns the mean input of a layer over its time steps and those operands that drive it.

    Args:
      layer: a `LayerEnergy`.
    """
    driving = layer.operands.keys() - set(layer.shape.added)
    rates = [layer.operands[name].rate.mean() for name in layer.operands if name in driving]
    return sum(rates) / len(rates)


def _totals(report):
    repeated = report.under(repeat_embedding=True)
    return {
        "accumulates": report.accumulates,
        "arriving": report.arriving,
        "macs": report.macs,
        "microjoule": report.microjoule,
        "with_repeated_embedding": {"macs": repeated.macs, "microjoule": repeated.microjoule},
        "with_membrane_updates": {"microjoule": report.under(count_membrane=True).microjoule},
    }


def _layer(name, by_convention):
    """The counts of a layer; whether integers cost accumulates or not, they are the same."""
    free = by_convention["accumulate"].layers[name]
    return {
        "input": free.kind,
        "rates": {which: operand.rate.tolist() for which, operand in free.operands.items()},
        "accumulates": free.accumulates.tolist(),
        "arriving": free.arriving.tolist(),
        "accumulates_by_rate": free.by_rate.tolist(),
        "macs": {c: report.layers[name].macs for c, report in by_convention.items()},
        "shape": dataclasses.asdict(free.shape),
    }


def _neurons(layer):
    return {
        "kind": describe(layer.shape.neuron)["kind"],
        "neurons": layer.shape.neurons,
        "spikes": layer.spikes.tolist(),
        "rates": layer.rates.tolist(),
        "updates": layer.updates.tolist(),
    }
