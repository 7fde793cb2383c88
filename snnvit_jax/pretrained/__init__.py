"""Trained networks: those that come with the package, and folders in the same format.

Imports `common`, `models`, `time_steps` and `xla`.
"""

from snnvit_jax.pretrained.catalogue import PREFIX, find, list_pretrained, load_pretrained
from snnvit_jax.pretrained.folder import check_free, is_network, packed, read_config, write
from snnvit_jax.pretrained.network import Pretrained

__all__ = [
    "PREFIX",
    "Pretrained",
    "check_free",
    "find",
    "is_network",
    "list_pretrained",
    "load_pretrained",
    "packed",
    "read_config",
    "write",
]
