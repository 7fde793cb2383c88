"""What peers.py measured, as Markdown."""

import statistics

from peer_cases import OURS, PEER

from snnvit_jax.common import markdown

TASKS = {"evaluation": "forward pass in inference mode", "training": "forward, backward, AdamW"}


def ratios(sides, side):
    """Returns another side's time by this project's, for each pair of neighbouring repetitions."""
    return [b / a for a, b in zip(sides.get(OURS, []), sides.get(side, []), strict=False)]


def of_case(result):
    """Returns a case's result as Markdown: a row for each task and side, then what failed."""
    head = ["", "side", "a call", "images/s", "TFLOP/s", "peak memory", "of ours", "pair by pair"]
    rows = []
    for task, sides in result["seconds"].items():
        for side, times in sides.items():
            median, found = statistics.median(times), ratios(sides, side)
            pairs = f"{min(found):.2f} to {max(found):.2f}" if found else ""
            ratio = f"{statistics.median(found):.2f}" if found else ""
            cells = [f"{task} ({TASKS[task]})", side, f"{median:.4g} s"]
            cells.append(f"{result['case']['batch_size'] / median:.4g}")
            cells.append(f"{result['flops'].get(task, 0) / median / 1e12:.3g}")
            cells.append(f"{result['megabytes'][task].get(side, 0):.0f} MB")
            rows.append([*cells, ratio, pairs])
    failed = [f"\n{side} failed: {error}\n" for side, error in result["errors"].items()]
    return "".join([markdown.table(head, rows, left=2), *failed])


def of_all(results):
    """Returns all cases as a Markdown table, a row for each: this project / SpikingJelly."""
    titles = ["", "pixels", "parameters"]
    for task in TASKS:
        titles += [f"{task}, s", "SpikingJelly / this", "pair by pair"]
    titles.append("peak memory, GB")
    rows = []
    for result in results:
        case, both = result["case"], [OURS, PEER]
        cells = [f"`{case['model']}`", case["image_size"]]
        cells.append(_both(result["parameters"], both, "{:,}"))
        for task in TASKS:
            times = result["seconds"].get(task, {})
            medians = {side: statistics.median(found) for side, found in times.items()}
            found = ratios(times, PEER)
            cells.append(_both(medians, both, "{:.2f}"))
            cells.append(f"{statistics.median(found):.2f}" if found else "")
            cells.append(f"{min(found):.2f} to {max(found):.2f}" if found else "")
        memory = {side: mb / 1000 for side, mb in result["megabytes"].get("training", {}).items()}
        rows.append([*cells, _both(memory, both, "{:.2f}")])
    return markdown.table(titles, rows)


def _both(values, sides, form):
    return " / ".join(form.format(values[side]) for side in sides if side in values)
