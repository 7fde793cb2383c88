"""The command `python -m snnvit_jax.carry`: a run on its way to another machine (`runs.carry`)."""

import sys

from snnvit_jax.extras import needed

with needed("train"):
    from snnvit_jax.runs.carry import main

if __name__ == "__main__":
    sys.exit(main())
