"""Starts processes with CPU devices of their own number: a script, or the command line twice.

Two processes of the command line have four devices each, and meet over loopback.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).parents[1]


def write_config(path, weights):
    """Writes the small configuration, over two processes with FSDP, as a file."""
    path.write_text(
        f"import sys\nsys.path.insert(0, {str(REPOSITORY / 'tests')!r})\n"
        "import parallel_run\n\n\ndef get_config():\n"
        f"    return parallel_run.small_config({str(weights)!r}, sharding='fsdp')\n"
    )
    return path


class Pair:
    """Two running processes of one training; a context manager that ends them.

    Attributes:
      processes: both, the first of which writes.
    """

    def __init__(self, config_file, workdir, *flags):
        self.processes = []
        port = _free_port()
        self._logs = [workdir.parent / f"{workdir.name}-{port}-{i}.log" for i in range(2)]
        for i, log in enumerate(self._logs):
            command = [
                *(sys.executable, "-m", "snnvit_jax.main"),
                *(f"--config={config_file}", f"--workdir={workdir}", "--heartbeat_timeout=10"),
                *(f"--coordinator_address=localhost:{port}", "--num_processes=2"),
                *(f"--process_id={i}", *flags),
            ]
            with log.open("w") as file:
                self.processes.append(
                    subprocess.Popen(
                        command,
                        cwd=REPOSITORY,
                        env=environment(devices=4),
                        stdout=file,
                        stderr=file,
                    )
                )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        trainers = [child for process in self.processes for child in children(process.pid)]
        for process in self.processes:  # before their children, or they would start others
            process.kill()
            process.wait()
        for trainer in trainers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(trainer, signal.SIGKILL)

    def wait(self, seconds=120):
        """Returns the exit statuses of both."""
        return [process.wait(timeout=seconds) for process in self.processes]

    def trainer(self, which):
        """Returns the id of the process that trains for one that was told to restart."""
        (child,) = children(self.processes[which].pid)
        return child

    def output(self, which):
        """Returns what a process has printed until now."""
        return self._logs[which].read_text()


def children(pid):
    """Returns the ids of a process's children."""
    paths = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in paths for child in path.read_text().split()]


def told_by(script, *arguments, devices=8):
    """Returns what a script of tests/ prints as JSON on its last line.

    Args:
      script: its path from tests/.
      *arguments: of the script.
      devices: that it runs with.
    """
    variables = environment(devices)
    tests = [str(REPOSITORY / "tests"), *filter(None, [variables.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tests" / script, *arguments],
        capture_output=True,
        text=True,
        env=variables | {"PYTHONPATH": os.pathsep.join(tests)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def environment(devices):
    """Returns the variables of a process with so many CPU devices."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(REPOSITORY / ".jax_cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return {**os.environ, **cache, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def _free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]
