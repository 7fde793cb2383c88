"""What peers.py measured, as Markdown."""

import statistics

from peer_cases import OURS, PEER

TASKS = {"evaluation": "forward pass in inference mode", "training": "forward, backward, AdamW"}


def ratios(sides, side):
    """Returns another side's time by this project's, for each pair of neighbouring repetitions."""
    return [b / a for a, b in zip(sides.get(OURS, []), sides.get(side, []), strict=False)]


def of_case(result):
    """Returns a case's result as lines of a table, a row for each task and side."""
    lines = ["| | side | a call | images/s | TFLOP/s | peak memory | of ours | pair by pair |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for task, sides in result["seconds"].items():
        for side, times in sides.items():
            median, found = statistics.median(times), ratios(sides, side)
            pairs = f"{min(found):.2f} to {max(found):.2f}" if found else ""
            ratio = f"{statistics.median(found):.2f}" if found else ""
            lines.append(
                f"| {task} ({TASKS[task]}) | {side} | {median:.4g} s | "
                f"{result['case']['batch_size'] / median:.4g} | "
                f"{result['flops'].get(task, 0) / median / 1e12:.3g} | "
                f"{result['megabytes'][task].get(side, 0):.0f} MB | {ratio} | {pairs} |"
            )
    return lines + [f"\n{side} failed: {error}" for side, error in result["errors"].items()]


def of_all(results):
    """Returns all cases as lines of a table, a row for each: this project / SpikingJelly."""
    titles = ["", "pixels", "parameters"]
    for task in TASKS:
        titles += [f"{task}, s", "SpikingJelly / this", "pair by pair"]
    titles.append("peak memory, GB")
    lines = [_row(titles), _row(["---"] * len(titles))]
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
        lines.append(_row([*cells, _both(memory, both, "{:.2f}")]))
    return lines


def _row(cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _both(values, sides, form):
    return " / ".join(form.format(values[side]) for side in sides if side in values)
