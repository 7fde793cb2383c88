"""What both workers of peers.py have in common: answering requests on standard input."""

import dataclasses
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Side:
    """What a worker can measure.

    Attributes:
      about: versions, and in what the model differs, shown to the reader.
      parameters: how many weights the model trains, time-step scores not counted.
      tasks: {name: function that makes one call}.
      wait: function that waits until all calls are done.
      peak_bytes: function that returns the most memory used so far.
      flops: {name of a task: floating-point operations of one call}; may be empty.
    """

    about: str
    parameters: int
    tasks: dict[str, Callable]
    wait: Callable
    peak_bytes: Callable
    flops: dict[str, int] = dataclasses.field(default_factory=dict)


def serve(prepare):
    """Answers each line of standard input, the name of a task, with the seconds that a call took.

    Only answers go to standard output; whatever else is printed there goes to standard error. An
    error is an answer too.

    Args:
      prepare: function of the arguments of `peer_cases.Case` that returns a `Side`.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(content):
        print(json.dumps(content), file=answers, flush=True)

    arguments = json.loads(sys.argv[1])
    try:
        side = prepare(arguments)
        answer({name: getattr(side, name) for name in ("about", "parameters", "flops")})
        for line in sys.stdin:
            task = line.strip()
            if task == "memory":
                answer({"megabytes": side.peak_bytes() / 1e6})
            else:
                answer({"seconds": _time(side.tasks[task], side.wait, arguments["calls"])})
    except Exception as error:
        traceback.print_exc()
        answer({"error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"})


def _time(call, wait, calls):
    wait()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    wait()
    return (time.perf_counter() - start) / calls


def peak_process_bytes():
    """Returns the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
