"""Two processes that share one training run on this machine, and what happens to one of them."""

import functools
import os
import pathlib
import signal
import socket
import time

import trial
from trial import Trial

HEARTBEAT_SECONDS = 10
PATIENCE = 300


class Pair:
    """Two `Trial`s in one folder, which meet at one address each time they are started.

    Attributes:
      folder: their workdir.
      both: the trials, the first of which writes.
    """

    def __init__(self, folder, *flags):
        """Chooses the address.

        Args:
          folder: the workdir.
          *flags: of both commands.
        """
        self.folder = pathlib.Path(folder)
        together = (f"--coordinator_address=localhost:{_free_port()}", "--num_processes=2")
        together += (f"--heartbeat_timeout={HEARTBEAT_SECONDS}", *flags)
        self.both = [
            Trial(folder, *together, f"--process_id={i}", log=f"{folder}-{i}.log") for i in (0, 1)
        ]

    def start(self):
        """Starts both and returns their processes."""
        return [one.start() for one in self.both]

    def end(self, processes, seconds=1800):
        """Waits for both and returns their exit statuses."""
        pairs = zip(self.both, processes, strict=True)
        return [one.end(process, seconds) for one, process in pairs]

    def finish(self):
        """Starts both, waits for their ends and returns the larger exit status."""
        return max(1 if x is None else abs(x) for x in self.end(self.start()))

    def error(self):
        """Returns the line in which one of them said what was wrong."""
        said = [one.error() for one in self.both]
        return next((text for text in said if "rror" in text), "")

    def wait(self, processes, step):
        """Returns when both have trained up to a step."""
        alive = self.both[0].wait(processes[0], lambda: self.both[0].done >= step)
        if not alive or processes[1].poll() is not None:
            raise RuntimeError(f"{self.folder} ended too early: {self.error()}")


def killed(campaign):
    """Kills the trainer of either process; with --restart, both go on by themselves."""
    pair = Pair(campaign.emptied("peer-killed"), "--restart=3")
    processes = pair.start()
    lost = 0
    for step, which in ((20, 1), (80, 0)):
        pair.wait(processes, step)
        lost = max(lost, pair.both[0].done - pair.both[0].newest)
        os.kill(_child(processes[which]), signal.SIGKILL)
    statuses = pair.end(processes)
    texts = [one.output for one in pair.both]
    restarts = [sum(x.startswith("restart: ") for x in text.splitlines()) for text in texts]
    return {
        "what": f"process 1, then 0 killed; after {restarts} restarts they end with {statuses}",
        "survived": statuses == [0, 0],
        "steps_lost": lost,
        "identical": trial.identical(trial.final(pair.folder), reference(campaign)),
    }


def stopped(campaign):
    """Stops either process, so that it says nothing more and breaks no connection."""
    pair = Pair(campaign.emptied("peer-stopped"))
    what, survived, lost = [], True, 0
    for step, which in ((20, 1), (80, 0)):
        processes = pair.start()
        pair.wait(processes, step)
        processes[which].send_signal(signal.SIGSTOP)
        start, other = time.monotonic(), 1 - which
        status = pair.both[other].end(processes[other], seconds=PATIENCE)
        seconds = time.monotonic() - start
        processes[which].kill()
        processes[which].wait()
        lost = max(lost, pair.both[0].done - pair.both[0].newest)
        said = "hangs" if status is None else f"ends with {status} after {seconds:.0f} s"
        what.append(f"process {which} silent, the other {said}: {pair.both[other].error()}")
        survived = survived and status == 75
    entry = campaign.resumed(pair, lost, reference(campaign), what="; ".join(what))
    return entry | {"survived": entry["survived"] and survived}


@functools.cache
def reference(campaign):
    """Returns `trial.final` of two processes that nothing happens to."""
    pair = Pair(campaign.scratch / "undisturbed-pair")
    if not (pair.folder / "report.html").exists() and pair.finish():
        raise RuntimeError(f"the undisturbed pair failed: {pair.error()}")
    return trial.final(pair.folder)


def _child(process):
    threads = pathlib.Path(f"/proc/{process.pid}/task").glob("*/children")
    return int(" ".join(path.read_text() for path in threads).split()[0])


def _free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]
