"""Times this project beside SpikingJelly, alternating between both in one run.

    python experiments/benchmarks/peers.py --peer-python PEER/bin/python

PEER is a virtual environment of its own; README.md in this folder says how to make it. Each side
lives in a process of its own and waits while the other one is measured. Prints a table of medians
and ratios, and writes it as JSON with --out.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
TASKS = {"evaluation": "forward pass in inference mode", "training": "forward, backward, AdamW"}


class Worker:
    """A process that measures one repetition of a task whenever it is asked to."""

    def __init__(self, python, script, arguments):
        passive = {"OMP_WAIT_POLICY": "PASSIVE"}  # an idle side must not spin
        self._process = subprocess.Popen(
            [python, str(HERE / script), json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | passive,
        )
        self.about = self._reply()

    def measure(self, task):
        """Returns the seconds that one repetition took."""
        return self._ask(task)["seconds"]

    def peak_megabytes(self):
        """Returns the largest resident size of the process so far."""
        return self._ask("memory")["megabytes"]

    def close(self):
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, request):
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        return self._reply()

    def _reply(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a worker ended; its error is above")
        return json.loads(line)


def measure(workers, repetitions):
    """Returns {task: {side: [seconds]}}, the sides in alternation after one warm-up each."""
    seconds = {task: {side: [] for side in workers} for task in TASKS}
    for task in TASKS:
        for repetition in range(repetitions + 1):
            for side, worker in workers.items():
                elapsed = worker.measure(task)
                if repetition:
                    seconds[task][side].append(elapsed)
            print(f"{task} {repetition}/{repetitions}", file=sys.stderr)
    return seconds


def table(seconds, workers):
    """Returns the result as lines of a Markdown table."""
    lines = [
        "| | this project | SpikingJelly | SpikingJelly / this | pair by pair |",
        "|---|---|---|---|---|",
    ]
    for task, sides in seconds.items():
        ours, theirs = sides["snnvit_jax"], sides["spikingjelly"]
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        lines.append(
            f"| {task} ({TASKS[task]}) | {statistics.median(ours):.2f} s | "
            f"{statistics.median(theirs):.2f} s | {statistics.median(ratios):.2f} | "
            f"{min(ratios):.2f} to {max(ratios):.2f} |"
        )
    ours, theirs = (workers[side].peak_megabytes() for side in ("snnvit_jax", "spikingjelly"))
    lines.append(
        f"| peak memory of the process | {ours:.0f} MB | {theirs:.0f} MB | {theirs / ours:.2f} | |"
    )
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--time-steps", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--out")
    options = parser.parse_args()
    arguments = {"batch_size": options.batch_size, "time_steps": options.time_steps}
    workers = {
        "snnvit_jax": Worker(sys.executable, "worker_snnvit_jax.py", arguments),
        "spikingjelly": Worker(options.peer_python, "worker_spikingjelly.py", arguments),
    }
    for side, worker in workers.items():
        print(f"{side}: {worker.about['about']}")
    seconds = measure(workers, options.repetitions)
    print("\n".join(table(seconds, workers)))
    if options.out:
        pathlib.Path(options.out).write_text(json.dumps(seconds, indent=1) + "\n")
    for worker in workers.values():
        worker.close()


if __name__ == "__main__":
    main()
