"""Counts what a compiled program does: kernels, bytes, arithmetic, a TPU compiler's own cycles.

    python experiments/accelerators/count.py OUT [--top=15]

of OUT.txt and OUT.json as step.py writes them. Kernels, bytes and operations are counted in the
program's text; times are estimates, from the rates that the maker gives: each kernel takes as long
as its bytes or its operations need, whichever is longer. Nothing is measured.
"""

import argparse
import collections
import json
import math
import re
from typing import NamedTuple

import hlo
from step import TARGETS

from snnvit_jax.common import markdown
from snnvit_jax.common.arguments import output_file, whole

# They compute nothing, or what they compute is counted where it runs.
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all")
_FREE += ("partition-id", "opt-barrier")
_MOVES = {"copy", "transpose", "reshape", "convert", "bitcast"}
_PLACES = {"pad", "slice", "concatenate", "dynamic-slice", "dynamic-update-slice", "reverse"}
_PLACES |= {"copy", "reshape", "bitcast"}
_NOTHING = {"parameter", "constant", "tuple", "get-tuple-element", "broadcast", "iota"}


class Kernel(NamedTuple):
    """One kernel of a program.

    Attributes:
      times: how often it runs.
      kind: what it does, in a few words.
      phase: "forward", "backward" or "rest".
      part: of the model.
      bytes: that one run reads and writes in main memory.
      flops: of its products and convolutions.
      cycles: estimated by a TPU's compiler; 0 without an estimate.
      instruction: the `hlo.Instruction`.
    """

    times: int
    kind: str
    phase: str
    part: str
    bytes: float
    flops: float
    cycles: int
    instruction: hlo.Instruction


def kernels(program, on_tpu):
    """Returns every `Kernel` of a program.

    Args:
      program: an `hlo.Program`.
      on_tpu: whether it was compiled for a TPU.
    """
    found = []
    for one, times in program.running():
        if one.opcode in _FREE or one.opcode.endswith(("-done", "-update")):
            continue
        inner = list(program.inside(one))
        name = _op_name(one, inner)
        size = _tpu_bytes(program, one) if on_tpu else _gpu_bytes(program, one)
        flops = sum(_flops(program, each) for each in inner)
        kind = _kind(one, inner)
        cycles = max(one.cycles or 0, 0)
        found.append(Kernel(times, kind, _phase(name), _part(name), size, flops, cycles, one))
    return found


def _op_name(one, inner):
    named = [each for each in inner if "/" in each.op_name]
    main = [each for each in named if each.opcode in ("dot", "convolution", "reduce")] or named
    return main[-1].op_name if main else one.op_name


def _phase(name):
    return "backward" if "transpose(jvp" in name else "forward" if "jvp(" in name else "rest"


def _part(name):
    if "patch_embed" in name or "stage_" in name:
        return "patch embedding"
    block = re.search(r"block_\d+/(\w+)", name)
    return f"block {block.group(1)}" if block else "others"


def _kind(one, inner):
    target = re.search(r'custom_call_target="([^"]+)"', one.attributes)
    products = [each for each in inner if each.opcode in ("dot", "convolution")]
    kinds = {each.opcode for each in inner} - _NOTHING
    if one.opcode.startswith(("all-", "reduce-scatter", "collective")):
        return "collective"
    if target:
        word = target.group(1)
        if "conv" in word:
            return "convolution"
        return "product" if _is_product(word) else word
    if products:
        named = {_product_kind(each.op_name) for each in products}
        return min(named)
    if one.opcode in ("copy-start", "slice-start"):
        return "transfer beside the computation"
    if kinds <= _MOVES:
        return "copy, other layout"
    if kinds <= _PLACES:
        return "pad, slice, concatenate"
    if "reduce" in kinds:
        return "reduction"
    return one.opcode if one.opcode in ("scatter", "sort", "select-and-scatter") else "elementwise"


def _is_product(target):
    """Whether a library's call is a matrix product: `__cublas$gemm` or `__cublas$lt$matmul`."""
    return "gemm" in target or "matmul" in target


def _product_kind(name):
    if "conv_general_dilated" in name:
        return "convolution"
    return "attention product" if "/product" in name else "product"


def _gpu_bytes(program, one):
    """Of operands and results; an operand that is only sliced counts as its slices."""
    total = one.bytes
    operands = program.operands(one)
    if one.opcode != "fusion":
        return total + sum(operand.bytes for operand in operands)
    body = program.computations[one.calls].values()
    places = {int(each.arguments): each for each in body if each.opcode == "parameter"}
    for i, operand in enumerate(operands):
        readers = [each for each in body if places[i].name in each.operands]
        if readers and all(each.opcode in ("slice", "dynamic-slice") for each in readers):
            total += min(operand.bytes, sum(each.bytes for each in readers))
        else:
            total += operand.bytes
    return total


def _tpu_bytes(program, one):
    """Of operands and results in main memory, padded to tiles."""
    if one.opcode in ("copy-start", "slice-start"):
        return 0.0
    arrays = [*one.results]
    for operand in program.operands(one):
        arrays += operand.results
    return sum(array.padded_bytes for array in arrays if array.in_main_memory)


def _flops(program, one):
    if one.opcode == "custom-call":
        return _library_flops(program, one)
    if one.opcode == "dot":
        left = program.operands(one)[0].results[0].dims
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes).group(1)
        inner = math.prod(left[int(axis)] for axis in axes.split(",") if axis)
        return 2 * math.prod(one.results[0].dims) * inner
    # Batch axes of the attention are written as windows: not counted.
    if one.opcode == "convolution" and "/product" not in one.op_name:
        labels = re.search(r"dim_labels=\w+_(\w+)->", one.attributes).group(1)
        kernel = program.operands(one)[1].results[0].dims
        sizes = dict(zip(labels, kernel, strict=True))
        return 2 * math.prod(one.results[0].dims) * math.prod(kernel) // sizes["o"]
    return 0


def _library_flops(program, one):
    """Of cuDNN's convolutions and cuBLAS's products."""
    target = re.search(r'custom_call_target="([^"]+)"', one.attributes).group(1)
    first, second = ([*program.operands(one), None, None])[:2]
    result = one.results[0] if one.results else None
    if "conv" in target:
        first, second = first.results[0], second.results[0]
        images, kernel = {
            "__cudnn$convBackwardInput": (first, second),
            "__cudnn$convBackwardFilter": (second, result),
        }.get(target, (result, second))
        labels = re.search(r"dim_labels=\w+_(\w+)->(\w+)", one.attributes)
        features = kernel.dims[labels.group(1).index("o")]
        return 2 * math.prod(images.dims) * math.prod(kernel.dims) // features
    if _is_product(target):
        axes = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', one.attributes).group(1)
        left = first.results[0].dims
        inner = math.prod(left[int(axis.strip('" '))] for axis in axes.split(",") if axis)
        return 2 * math.prod(result.dims) * inner
    return 0


def seconds(kernel, target):
    """Returns the least time of one run: of its bytes or its operations, whichever is longer."""
    return max(kernel.bytes / target.memory_rate, kernel.flops / target.flops)


def totals(found, facts):
    """Returns what a program does as a whole, a dictionary of numbers.

    Args:
      found: its kernels.
      facts: about it, as `step.compile_step` returns them.
    """
    target = TARGETS[facts["target"]]
    total = {
        "kernels": sum(k.times for k in found),
        "bytes": sum(k.times * k.bytes for k in found),
        "flops": sum(k.times * k.flops for k in found),
        "collectives": sum(k.times for k in found if k.kind == "collective"),
        "roofline_seconds": sum(k.times * seconds(k, target) for k in found),
    }
    total["mfu_at_roofline"] = facts["model_flops"] / total["roofline_seconds"] / target.flops
    if target.clock:
        total["cycles"] = sum(k.times * k.cycles for k in found)
        total["cycle_seconds"] = total["cycles"] / target.clock
        total["mfu_by_cycles"] = facts["model_flops"] / total["cycle_seconds"] / target.flops
        layout = [k for k in found if k.kind == "copy, other layout"]
        total["layout_share"] = sum(k.times * k.cycles for k in layout) / total["cycles"]
    return total


def table(found, target, key, limit=30):
    """Returns a Markdown table: kernels in groups, the longest first.

    Args:
      found: kernels.
      target: a `Target`.
      key: function of a kernel, the name of its group.
      limit: of groups.
    """
    groups = collections.defaultdict(list)
    for kernel in found:
        groups[key(kernel)].append(kernel)

    def cost(group):
        return sum(k.times * (k.cycles if target.clock else seconds(k, target)) for k in group)

    whole = cost(found)
    rows = []
    for name, group in sorted(groups.items(), key=lambda item: -cost(item[1]))[:limit]:
        size, flops = (
            sum(k.times * x for k, x in zip(group, part, strict=True))
            for part in ([k.bytes for k in group], [k.flops for k in group])
        )
        numbers = f"{sum(k.times for k in group):,}", f"{size / 1e9:.2f}", f"{flops / 1e12:.3f}"
        rows.append([name, *numbers, f"{cost(group) / whole:.1%}"])
    return markdown.table(["", "kernels", "GB", "TFLOP", "share of time"], rows)


def largest(program, found, limit):
    """Returns lines: the kernels that move most, what they read and write."""
    lines = []
    for k in sorted(found, key=lambda k: -k.times * (k.cycles or k.bytes))[:limit]:
        one, inner = k.instruction, list(program.inside(k.instruction))
        read = [str(x.type)[:40] for x in program.operands(one)][:7]
        counts = collections.Counter(x.opcode for x in inner if x.opcode not in _NOTHING)
        lines.append(
            f"{k.bytes / 1e6:9.1f} MB {k.cycles:>11,} cycles x{k.times} {one.name} {k.kind} "
            f"{_op_name(one, inner)[-100:]}\n    writes {one.type[:160]}\n    reads {read}\n"
            f"    {dict(counts.most_common(12))}"
        )
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=output_file)
    parser.add_argument("--top", type=whole(0), default=0, help="single kernels to show")
    options = parser.parse_args()
    facts = json.loads(options.out.with_suffix(".json").read_text())
    target = TARGETS[facts["target"]]
    program = hlo.Program(options.out.with_suffix(".txt").read_text())
    found = kernels(program, target.platform == "tpu")
    total = totals(found, facts)
    options.out.with_suffix(".counts.json").write_text(json.dumps(facts | total, indent=1) + "\n")
    print(json.dumps(total, indent=1))
    for key in (
        lambda k: k.kind,
        lambda k: f"{k.part}, {k.phase}",
        lambda k: f"{k.kind}, {k.phase}",
    ):
        print("\n" + table(found, target, key), end="")
    print("", *largest(program, found, options.top), sep="\n")


if __name__ == "__main__":
    main()
