"""Several devices and processes: sharding, meeting, and peers that fall silent.

Imports nothing else of this package.
"""

from snnvit_jax.distributed.processes import (
    HEARTBEAT_TIMEOUT,
    CommonStop,
    initialize,
    is_wanted,
    is_writer,
    same_for_all,
    several_processes,
    true_for_all,
)

__all__ = [
    "HEARTBEAT_TIMEOUT",
    "CommonStop",
    "initialize",
    "is_wanted",
    "is_writer",
    "same_for_all",
    "several_processes",
    "true_for_all",
]
