"""What both workers of peers.py have in common: answering requests on standard input."""

import json
import resource
import sys
import time


def serve(about, tasks):
    """Answers each line of standard input, the name of a task, with the seconds it took.

    Args:
      about: versions, shown to the reader.
      tasks: {name: function that does the work and waits until it is done}.
    """
    print(json.dumps({"about": about}), flush=True)
    for line in sys.stdin:
        task = line.strip()
        if task == "memory":
            kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            answer = {"megabytes": kilobytes / 1024}
        else:
            start = time.perf_counter()
            tasks[task]()
            answer = {"seconds": time.perf_counter() - start}
        print(json.dumps(answer), flush=True)
