"""What a file in configs/ starts from: `default_config`, with every key it may set."""

from snnvit_jax.runs.config import default_config

__all__ = ["default_config"]
