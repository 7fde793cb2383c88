"""Times this project beside SpikingJelly, alternating between both in one run.

    python experiments/benchmarks/peers.py --peer-python PEER/bin/python [--device=families]
        [--out=FILE]

PEER is an environment with SpikingJelly; README.md in this folder says how to make it. Each side
lives in a process of its own and waits while the other one is measured. On a GPU, SpikingJelly is
measured with its own choice of kernels under autocast, with and without torch.compile; a side that
fails is reported with its error, and the others go on. Prints a table of medians and ratios for
each case and one of all cases, and writes all times as JSON.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import select
import subprocess
import sys

import peer_tables
import tqdm
from peer_cases import CASES, OURS, SIDES, sides

from snnvit_jax.common.arguments import number, output_file, whole

HERE = pathlib.Path(__file__).parent


class WorkerError(Exception):
    """A side could not do what it was asked to."""


class Worker:
    """A process that measures one repetition of a task whenever it is asked to.

    Attributes:
      about: its versions and device, and in what its model differs.
      parameters: of its model.
      flops: of one call of each task, {} if it does not count them.
    """

    def __init__(self, python, script, arguments, timeout):
        """Starts it; one that leaves a request unanswered for `timeout` seconds is killed."""
        self._timeout = timeout
        # An idle side must not spin, and must not keep the memory that it does not use.
        environment = {"OMP_WAIT_POLICY": "PASSIVE", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self._process = subprocess.Popen(
            [python, str(HERE / script), json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        hello = self._reply()
        self.about, self.flops = hello["about"], hello["flops"]
        self.parameters = hello["parameters"]

    def measure(self, task):
        """Returns the seconds that one call took."""
        return self._ask(task)["seconds"]

    def peak_megabytes(self):
        """Returns the most memory used so far: of the process, or on the GPU that of its arrays."""
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
        ready, _, _ = select.select([self._process.stdout], [], [], self._timeout)
        line = self._process.stdout.readline() if ready else None
        if line is None:
            self._process.kill()
            answer = {"error": f"no answer within {self._timeout:g} s"}
        else:
            answer = json.loads(line or '{"error": "it ended; what it said is above"}')
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer


def start(case, options):
    """Returns ({side: Worker}, {side: error})."""
    workers, errors = {}, {}
    for side in sides(case, options.device):
        script, compiled = SIDES[side]
        arguments = dataclasses.asdict(case) | {"compiled": compiled, "device": options.device}
        python = sys.executable if side == OURS else options.peer_python
        try:
            workers[side] = Worker(python, script, arguments, options.timeout)
        except WorkerError as error:
            errors[side] = str(error)
    return workers, errors


def measure(workers, errors, repetitions):
    """Returns ({task: {side: [seconds]}}, {task: {side: MB}}), all sides in turn.

    The first repetition of each compiles and warms up. A side that fails is moved to `errors`.
    """
    seconds, memory = {}, {}
    for task in peer_tables.TASKS:
        seconds[task] = {side: [] for side in workers}
        for _ in tqdm.trange(repetitions + 1, desc=task, leave=False):
            for side in list(workers):
                try:
                    seconds[task][side].append(workers[side].measure(task))
                except WorkerError as error:
                    errors[side] = f"{task}: {error}"
                    workers.pop(side).close()
        memory[task] = {side: worker.peak_megabytes() for side, worker in workers.items()}
        seconds[task] = {side: times[1:] for side, times in seconds[task].items() if times[1:]}
    return seconds, memory


def run(case, options):
    """Returns everything measured for a case."""
    workers, errors = start(case, options)
    about = {side: worker.about for side, worker in workers.items()}
    parameters = {side: worker.parameters for side, worker in workers.items()}
    flops = workers[OURS].flops if OURS in workers else {}
    try:
        seconds, memory = measure(workers, errors, options.repetitions)
    finally:
        for worker in workers.values():
            worker.close()
    return {
        **{"case": dataclasses.asdict(case), "about": about, "errors": errors},
        **{"parameters": parameters, "flops": flops},
        **{"seconds": seconds, "megabytes": memory},
    }


def show(case, result):
    """Prints what was measured of a case."""
    print(f"\n{case.name}")
    for side, text in result["about"].items():
        print(f"{side}: {text}; {result['parameters'][side]:,} parameters")
    print(peer_tables.of_case(result), end="", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--device", choices=list(CASES), default="cpu")
    parser.add_argument("--batch-size", type=whole(1), help="in place of each case's own")
    parser.add_argument("--repetitions", type=whole(1), default=7)
    parser.add_argument("--timeout", type=number(above=0), default=600, help="of a repetition, s")
    parser.add_argument("--out", type=output_file)
    options = parser.parse_args()
    found = []
    for case in CASES[options.device]:
        if options.batch_size:
            case = dataclasses.replace(case, batch_size=options.batch_size)
        found.append(run(case, options))
        show(case, found[-1])
        if options.out:
            options.out.write_text(json.dumps(found, indent=1) + "\n")
    print("\n" + peer_tables.of_all(found), end="")


if __name__ == "__main__":
    main()
