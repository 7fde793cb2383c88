"""The command `python -m snnvit_jax.carry`: a run on its way to another machine (`runs.carry`)."""

import sys

from snnvit_jax import extras

try:
    with extras.needed("train"):
        from snnvit_jax.runs.carry import main
except extras.MissingExtraError as missing:
    sys.exit(f"error: {missing}")

if __name__ == "__main__":
    sys.exit(main())
