"""Several processes as one run: start-up, who writes, and stopping all of them in the same step."""

import os

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

# Seconds after which a process that is not heard of any more counts as lost.
HEARTBEAT_TIMEOUT = 60

# Variables that launchers set to the number of processes: inside `srun`, Open MPI, TPU multislice.
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES")
_HOST_LISTS = ("TPU_WORKER_HOSTNAMES",)  # separated by commas; set on GKE


def several_processes(environment):
    """Returns whether a launcher says that it has started more than one process.

    Args:
      environment: {variable: value}, such as `os.environ`.

    Raises:
      ValueError: if a number of processes is none.
    """
    for name in _COUNTS:
        text = environment.get(name, "1")
        if not text.isdigit():
            raise ValueError(f"the environment variable {name}={text!r} must be a whole number")
        if int(text) > 1:
            return True
    return any("," in environment.get(name, "") for name in _HOST_LISTS)


def is_wanted(wanted, coordinator_address):
    """Returns whether this process is to join others.

    Args:
      wanted: as for `initialize`.
      coordinator_address: as for `initialize`.

    Raises:
      ValueError: if a launcher's number of processes is none.
    """
    if wanted is not None:
        return wanted
    return coordinator_address is not None or several_processes(os.environ)


def initialize(
    wanted=None,
    *,
    coordinator_address=None,
    num_processes=None,
    process_id=None,
    heartbeat_timeout=HEARTBEAT_TIMEOUT,
):
    """Joins the other processes of a run, if there are any; must come before any computation.

    JAX aborts the process if another has been silent for twice the timeout: `peers.watch`, which
    can say what happened, comes first.

    What is not given, JAX finds in the environments of SLURM, Open MPI, TPU pods and GKE.

    Args:
      wanted: True to join, False not to; None to join if an address is given, or if a launcher has
        started several processes.
      coordinator_address: "host:port" of process 0, the same for all; None to find it.
      num_processes: how many there are; None to find it.
      process_id: in [0, num_processes); None to find it.
      heartbeat_timeout: seconds, >= 1, after which a silent process counts as lost.

    Returns:
      Whether this process is one of a group now.

    Raises:
      ValueError: for a number that does not fit, or if an environment does not tell of the others.
      jax.errors.JaxRuntimeError: if the others do not come, or one of them has come before.
    """
    given = coordinator_address is not None
    if not given and (num_processes is not None or process_id is not None):
        raise ValueError(f"{num_processes=}, {process_id=} need a coordinator_address (host:port)")
    if given and ":" not in coordinator_address:
        raise ValueError(f"{coordinator_address=} must be host:port")
    if num_processes is not None and not 0 <= (process_id or 0) < num_processes:
        raise ValueError(f"{process_id=} must lie in [0, {num_processes=})")
    if heartbeat_timeout < 1:
        raise ValueError(f"{heartbeat_timeout=} must be at least 1 second")
    if not is_wanted(wanted, coordinator_address):
        return False
    # It would take SIGTERM for itself, which the training loop answers by saving.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=2 * heartbeat_timeout,
        )
    except jax.errors.JaxRuntimeError:
        raise
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"cannot join the other processes: {error}; give --coordinator_address, "
            "--num_processes and --process_id"
        ) from error
    return True


def is_writer():
    """Returns whether this process writes the files of the run that one process writes."""
    return jax.process_index() == 0


def same_for_all(numbers):
    """Returns the whole numbers that process 0 has; all processes must call it together.

    Args:
      numbers: a list of whole numbers below 2^31, equally long everywhere.
    """
    if jax.process_count() == 1:
        return list(numbers)
    return multihost_utils.broadcast_one_to_all(np.asarray(numbers, np.int32)).tolist()


class CommonStop:
    """A request to stop that all processes hear of in the same step.

    In every step each process adds its own request, which goes through the devices behind the work
    that waits there. It is read two steps later, when the result has long arrived, so that nobody
    waits for it.

    (`multihost_utils.reached_preemption_sync_point` agrees on a step too, but only on SIGTERM,
    whose handler it takes from Python: Ctrl-C would stop one process, a process by itself would get
    no notice, and nobody would know which signal to exit with.)

    Attributes:
      signal: number of the signal that all processes stop for, or None.
    """

    _STEPS_BEHIND = 2

    def __init__(self, request, mesh):
        """Begins to watch.

        Args:
          request: a `StopRequest` of this process.
          mesh: the devices of all processes.
        """
        self._request = request
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._pending = []
        self._agreed = None

    @property
    def signal(self):
        """Number of the signal to stop for, or None."""
        return self._request.signal if jax.process_count() == 1 else self._agreed

    def __bool__(self):
        return self.signal is not None

    def exchange(self):
        """Tells the others of this process's request; all processes must call it in every step."""
        if jax.process_count() == 1:
            return
        own = np.full(jax.local_device_count(), self._request.signal or 0, np.int32)
        everyone = jax.make_array_from_process_local_data(self._sharding, own)
        self._pending.append(self._largest(everyone))
        if len(self._pending) > self._STEPS_BEHIND and self._agreed is None:
            self._agreed = int(self._pending.pop(0)) or None


def true_for_all(flag):
    """Returns whether a flag is true in every process; all must call it together.

    Args:
      flag: this process's.
    """
    if jax.process_count() == 1:
        return bool(flag)
    return bool(np.all(multihost_utils.process_allgather(np.asarray(flag))))
