"""What both workers of peers.py have in common: answering requests on standard input."""

import json
import os
import resource
import sys
import time
import traceback


def serve(prepare):
    """Answers each line of standard input, the name of a task, with the seconds that a call took.

    Only answers go to standard output; whatever else is printed there goes to standard error. An
    error is an answer too.

    Args:
      prepare: function of the arguments of `peers.Case` that returns
        about: versions, shown to the reader;
        tasks: {name: function that makes one call};
        wait: function that waits until all calls are done;
        flops: {name: floating-point operations of one call}; may be empty;
        peak_bytes: function that returns the most memory used so far.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(content):
        print(json.dumps(content), file=answers, flush=True)

    arguments = json.loads(sys.argv[1])
    try:
        about, tasks, wait, flops, peak_bytes = prepare(arguments)
        answer({"about": about, "flops": flops})
        for line in sys.stdin:
            task = line.strip()
            if task == "memory":
                answer({"megabytes": peak_bytes() / 1e6})
            else:
                answer({"seconds": _time(tasks[task], wait, arguments["calls"])})
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
