"""Measures this project on one GPU, beside what was estimated, within a budget of time.

    python experiments/accelerators/measure.py OUT [--minutes=8] [--estimates FILE ...]
        [--peer-python PEER/bin/python] [--groups GROUP ...] [--dry-run]

Writes OUT.json and OUT.md (a table) after every row, the most important first: whether kernels give
what the compiler's own program gives; training step and evaluation of two Spikformers; the other
families; rates of multiplying and copying; SpikingJelly beside it, through
experiments/benchmarks/peers.py. A row that fails, crashes or takes too long is written with its
error, and the others go on; rows that the budget does not reach are written as skipped. Compilation
counts into the budget. `--dry-run` does all of this on the CPU, with tiny sizes and into
OUT.dry_run.json and OUT.dry_run.md; its times say nothing.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import measure_kinds
import measure_table
import tqdm
from measure_rows import GROUPS, all_rows, dry
from measure_worker import Worker, WorkerError

from snnvit_jax.common import files
from snnvit_jax.common.arguments import number, output_file

PEERS = pathlib.Path(__file__).parents[1] / "benchmarks" / "peers.py"
LEAST = 5.0  # seconds that must be left for a row to be begun


class Budget:
    """Time that may be spent."""

    def __init__(self, minutes, clock=time.monotonic):
        """Starts it; `clock` is a function that returns seconds."""
        self.minutes, self._clock, self._start = minutes, clock, clock()

    @property
    def spent(self):
        """Seconds since the start."""
        return self._clock() - self._start

    @property
    def left(self):
        """Seconds until the end."""
        return self.minutes * 60 - self.spent


class Page:
    """The two files that results are written to."""

    def __init__(self, out, device, budget, options, estimates):
        """Keeps what every row needs; arguments as in `main`."""
        self._out, self._budget, self._estimates = out, budget, estimates
        self._about = {"dry_run": options.dry_run, "device": device, "minutes": budget.minutes}
        peak = options.peak_tflops and options.peak_tflops * 1e12
        self._about["peak_flops"] = peak or measure_table.peak_of(device)
        self.rows = []

    def add(self, row, found):
        """Adds what was found of a row, and writes everything."""
        one = {"name": row.name, **dataclasses.asdict(row), **found}
        ones = measure_table.of_peers(one.pop("cases", None) or [])
        if not ones or one.keys() & {"error", "skipped"}:
            ones.append(one)
        for each in ones:
            estimate = self._estimates.get(each["name"])
            self.rows.append(
                each | measure_table.derived(each, self._about["peak_flops"], estimate)
            )
        self.write()

    def write(self):
        """Writes OUT.json and OUT.md."""
        result = {**self._about, "spent_seconds": self._budget.spent, "rows": self.rows}
        self._write(".json", json.dumps(result, indent=1) + "\n")
        self._write(".md", measure_table.page(result))

    def text(self):
        """Returns the table as it was last written."""
        return self._path(".md").read_text()

    def _write(self, ending, text):
        files.write_text(self._path(ending), text)

    def _path(self, ending):
        middle = ".dry_run" if self._about["dry_run"] else ""
        return self._out.with_name(self._out.name + middle + ending)


def measure(rows, ask, budget, page, row_seconds=240.0):
    """Measures rows one after the other, as long as there is time.

    Args:
      rows: to be measured, `Row`s.
      ask: function (row, seconds that it may take) -> what was found, a dictionary; may raise
        `WorkerError`.
      budget: a `Budget`.
      page: a `Page`.
      row_seconds: that a row takes at most.
    """
    for row in tqdm.tqdm(rows, unit="row"):
        if budget.left < LEAST:
            page.add(row, {"skipped": f"the {budget.minutes:g} minutes were over"})
            continue
        start = budget.spent
        try:
            found = ask(row, min(budget.left, row_seconds))
        except WorkerError as error:
            found = {"error": str(error), "whole_seconds": budget.spent - start}
        page.add(row, found)


def asker(worker, options, budget):
    """Returns `ask` of `measure`: rows in the worker, SpikingJelly's in processes of its own."""

    def ask(row, seconds):
        if row.kind != "peers":
            return worker.ask(seconds, measure_kinds.measured, row)
        worker.close()  # what it holds on the device
        return beside_peers(options, max(budget.left, 0))

    return ask


def beside_peers(options, seconds):
    """Returns what peers.py measures within some time.

    Args:
      options: of the command line.
      seconds: after which it is ended; what it has written by then counts.
    """
    if options.peer_python is None:
        return {"skipped": "no --peer-python was given: nothing is measured beside SpikingJelly"}
    out = options.out.with_name(f"{options.out.name}.peers.json")
    out.unlink(missing_ok=True)
    command = [sys.executable, str(PEERS), f"--peer-python={options.peer_python}", f"--out={out}"]
    command += ["--device=smoke", "--repetitions=1"] if options.dry_run else ["--device=gpu"]
    process = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
    found = {}
    try:
        if process.wait(seconds):
            found["error"] = f"peers.py failed with exit code {process.returncode}"
    except subprocess.TimeoutExpired:
        found["error"] = f"peers.py was ended after {seconds:.0f} s: the time was over"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its sides with it
            process.wait()
    try:
        return found | {"cases": json.loads(out.read_text()) if out.exists() else []}
    except ValueError:  # it was ended as it wrote
        return {"error": f"{out.name} was not written to its end"} | found


def parse(arguments):
    """Returns (options, parser) of a command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=output_file, help="what the files' names begin with")
    parser.add_argument("--minutes", type=number(above=0), default=8.0, help="all in all")
    parser.add_argument("--row-seconds", type=number(above=0), default=240.0, help="for a row")
    parser.add_argument("--estimates", type=pathlib.Path, nargs="+", default=[])
    parser.add_argument("--peer-python", help="of an environment with SpikingJelly")
    parser.add_argument("--peak-tflops", type=number(above=0), help="of the device, for the MFU")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, with tiny sizes")
    return parser.parse_args(arguments), parser


def check_device(device, dry_run):
    """Raises ValueError unless there is a GPU, or this is a dry run."""
    if device["platform"] not in ("gpu", "cuda", "rocm") and not dry_run:
        raise ValueError(
            f"no GPU: JAX finds {', '.join(device['devices'])}; "
            "--dry-run shows on a CPU that everything works"
        )


def main():
    options, parser = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and not without ending the worker
    if options.dry_run:
        os.environ["JAX_PLATFORMS"] = "cpu"  # of the worker, and of peers.py
        print(f"{measure_table.DRY.upper()} on the CPU: its times say nothing", file=sys.stderr)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # peers.py needs some of it
    budget, worker = Budget(options.minutes), Worker()
    try:
        estimates = measure_table.read_estimates(options.estimates)
        device = worker.ask(120, measure_kinds.device)
        check_device(device, options.dry_run)
    except (ValueError, OSError, WorkerError) as error:
        worker.close()
        parser.error(str(error))
    page = Page(options.out, device, budget, options, estimates)
    rows = all_rows(options.groups)
    rows = [dry(row) for row in rows] if options.dry_run else rows
    measure(rows, asker(worker, options, budget), budget, page, options.row_seconds)
    worker.close()
    print(page.text(), end="")


if __name__ == "__main__":
    main()
