"""What flows between layers: values at the time steps that exist, and who hears whom.

Imports `time_steps` and `xla`.
"""

from snnvit_jax.signals.images import check_images
from snnvit_jax.signals.plan import Plan
from snnvit_jax.signals.signal import Signal
from snnvit_jax.signals.trace import Node, Tracer

__all__ = ["Node", "Plan", "Signal", "Tracer", "check_images"]
