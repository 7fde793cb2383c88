"""Deployed models for other runtimes: a traced program, translated into an ONNX graph.

One equation of the program becomes one or a few nodes. Which, says one function for each primitive:
`elementwise`, `shapes` and `products` hold them; a primitive without one is refused by name.
"""

from snnvit_jax.deployment.onnx.export import model_bytes

__all__ = ["model_bytes"]
