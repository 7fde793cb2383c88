"""What measure.py measured, beside what was expected of it, as a table in Markdown."""

import json
import statistics

from measure_rows import model_name

from snnvit_jax.common import markdown

# Dense bfloat16 operations in a second by the makers' data sheets, by a part of the device's name.
PEAKS = {"H100 80GB HBM3": 989.4e12, "H200": 989.4e12, "A100": 312e12}
DRY = "dry run"
HEAD = (
    *("", "ms", "images/s", "TFLOP/s", "MFU", "GB/s", "memory, GB", "compilation, s"),
    *("estimate, ms", "measured / estimate", "remarks"),
)
_KINDS = {"train": "training", "eval": "evaluation"}


def read_estimates(paths):
    """Returns {name of a row: {"ms": number, "bytes": number}}.

    Args:
      paths: of files with such a dictionary, of what count.py writes of one program, or of what
        families.py writes of many; of these, those with an error are left out.

    Raises:
      ValueError: naming a file that is neither.
      OSError: if one cannot be read.
    """
    found = {}
    for path in paths:
        try:
            content = json.loads(path.read_text())
            found |= _estimates(content)
            for one in found.values():
                if not one["ms"] > 0:
                    raise ValueError(f"ms={one['ms']!r} must be above 0")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} holds no estimates, which are {{name of a row: "
                f'{{"ms": number, "bytes": number}}}}, OUT.counts.json of count.py or '
                f"families.json: {error!r}"
            ) from error
    return found


def _estimates(content):
    if isinstance(content, list):
        counted = [_counted(one) for one in content if "error" not in one]
        return {name: estimate for one in counted for name, estimate in one.items()}
    return _counted(content) if "target" in content else content


def _counted(facts):
    form = [facts[key] for key in ("model", "image_size", "batch_size")]
    name = model_name(*form, _KINDS[facts["mode"]], facts.get("procedure_kernels"))
    return {name: {"ms": facts["roofline_seconds"] * 1e3, "bytes": facts["bytes"]}}


def peak_of(device):
    """Returns the operations in a second of a device by its data sheet; None if not known here."""
    return next((peak for name, peak in PEAKS.items() if name in device["kind"]), None)


def derived(row, peak, estimate):
    """Returns what follows from a row's time: rates, and how far it is from what was expected.

    Args:
      row: a dictionary with what was measured.
      peak: operations in a second that the device has at most, or None.
      estimate: {"ms", perhaps "bytes"}, or None.
    """
    if "seconds" not in row:
        return {}
    seconds, found = row["seconds"], {}
    if row.get("model"):
        found["images_per_second"] = row["batch_size"] / seconds
    if row.get("flops"):
        found["flops_per_second"] = row["flops"] / seconds
        found |= {"mfu": row["flops"] / seconds / peak} if peak else {}
    moved = row.get("bytes") or (estimate or {}).get("bytes")
    found |= {"bytes_per_second": moved / seconds} if moved else {}
    if estimate:
        found |= {"estimate": estimate, "measured_by_estimate": seconds * 1e3 / estimate["ms"]}
    return found


def of_peers(results):
    """Returns rows of what peers.py measured: of each case, task and side."""
    found = []
    for result in results:
        case, ours = result["case"], {}
        for task, sides in result["seconds"].items():
            for side, times in sides.items():
                seconds = statistics.median(times)
                ours.setdefault(task, seconds)  # this project is the first side
                name = model_name(case["model"], case["image_size"], case["batch_size"], task, None)
                found.append(
                    {key: case[key] for key in ("model", "image_size", "batch_size", "dtype")}
                    | {"name": f"{side}: {name}", "seconds": seconds}
                    | {"flops": result["flops"].get(task)}
                    | {"device_peak_bytes": result["megabytes"][task].get(side, 0) * 1e6}
                    | {"of_first_side": seconds / ours[task], "compile_seconds": None}
                )
        found += [
            {"name": f"{s}: {case['model']}", "error": e} for s, e in result["errors"].items()
        ]
    return found


def page(result):
    """Returns everything measured as Markdown.

    Args:
      result: as measure.py writes it, with "rows".
    """
    dry, device = result["dry_run"], result["device"]
    lines = [f"{device['kind']}, jax {device['jax']}, snnvit_jax {device['snnvit_jax']}; "]
    lines[0] += f"{result['spent_seconds']:.0f} s of {result['minutes']:g} minutes"
    if result["peak_flops"]:
        lines[0] += f"; MFU of {result['peak_flops'] / 1e12:.4g} TFLOP/s"
    if dry:
        lines[:0] = [f"**{DRY.upper()} on a CPU with tiny sizes: its times say nothing.**", ""]
    rows = [_cells(row, f"{DRY}: " if dry else "") for row in result["rows"]]
    return "\n".join([*lines, "", markdown.table(HEAD, rows)])


def _cells(row, prefix):
    def number(key, scale=1.0, form=".4g"):
        value = row.get(key)
        return "" if value is None else format(value * scale, form)

    memory = "program_bytes" if row.get("program_bytes") else "device_peak_bytes"
    return (
        *(prefix + row["name"], number("seconds", 1e3), number("images_per_second")),
        *(number("flops_per_second", 1e-12, ".3g"), number("mfu", 1, ".3f")),
        *(number("bytes_per_second", 1e-9), number(memory, 1e-9, ".3g")),
        number("compile_seconds", 1, ".0f"),
        *(format(row["estimate"]["ms"], ".4g") if "estimate" in row else "",),
        *(number("measured_by_estimate", 1, ".2f"), _remarks(row).replace("|", "/")),
    )


def _remarks(row):
    found = [f"{key}: {row[key]}" for key in ("skipped", "error") if key in row]
    if "agrees" in row:
        apart = f"logits {row['logits_apart']:.2g}, gradient {row['gradient_apart']:.2g} apart"
        found.append(("agrees: " if row["agrees"] else "DOES NOT AGREE: ") + apart)
    if "retried" in row:
        options = row["retried"]["options"]
        found.append(f"compiled with {options} after {row['retried']['because']}")
    if row.get("steps_taken_back"):
        found.append(f"{row['steps_taken_back']} steps taken back: not finite")
    if "average_time_steps" in row:
        found.append(f"{row['average_time_steps']:.2f} time steps on average")
    if "of_first_side" in row:
        found.append(f"{row['of_first_side']:.2f} of the first side's time")
    return "; ".join(found)
