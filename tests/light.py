"""Run by test_light_import.py in a process of its own: what works with jax, flax and numpy alone.

Modules of all other packages cannot be imported, except those that jax and flax have loaded by
themselves. `safetensors`, without which no deployed model is read, comes in after the import.
"""

import importlib.abc
import pathlib
import sys
import tempfile

import flax.linen  # noqa: F401
import jax
import jax.export
import numpy as np

ALLOWED = {name.partition(".")[0] for name in sys.modules} | sys.stdlib_module_names
NEEDED = ("jaxlib", "ml_dtypes", "opt_einsum", "scipy", "flatbuffers")  # by jax, some of them late
ALLOWED |= {"snnvit_jax", *NEEDED}


class Block(importlib.abc.MetaPathFinder):
    """Finds no module of a package that is not allowed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main():
    """Uses the package as a library would."""
    sys.meta_path.insert(0, Block())
    import snnvit_jax as snn

    ALLOWED.add("safetensors")
    model = snn.create_model(
        "spikformer_4_384", 3, 16, 2, embed_dim=16, num_heads=2, depth=1, mlp_ratio=1.0
    )
    images = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    deployed = snn.deploy(model, variables)
    path = pathlib.Path(tempfile.mkdtemp()) / "model.snn"
    deployed.save(path)
    wanted = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(snn.load_deployed(path)(images), wanted, atol=1e-5)
    assert snn.load_pretrained(snn.list_pretrained()[0]).classes
    assert snn.energy_report(model, variables, images).microjoule > 0
    for name in ("training", "evaluation", "checkpoints", "report", "config"):
        try:
            __import__(f"snnvit_jax.{name}")
        except ModuleNotFoundError as error:
            assert "it comes with pip install 'snnvit_jax[train]'" in str(error), (name, error)
        else:
            raise AssertionError(name)
    for name in ("carry", "main"):  # commands end the process, saying what is missing
        try:
            __import__(f"snnvit_jax.{name}")
        except SystemExit as ended:
            print(name, ended)
        else:
            raise AssertionError(name)


if __name__ == "__main__":
    main()
