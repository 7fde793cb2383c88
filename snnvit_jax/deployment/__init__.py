"""Deployment: a finished model's time steps compiled away, exported to one file.

Imports `common`, `layers`, `models`, `neurons`, `signals`, `time_steps` and `xla`.
"""

from snnvit_jax.deployment.build import deploy
from snnvit_jax.deployment.deployed import Deployed, load_deployed

__all__ = ["Deployed", "deploy", "load_deployed"]
