"""What setup.cfg cannot say: configs/ is shipped inside the package, for `--config=NAME`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["snnvit_jax*"]), "snnvit_jax.configs"],
    package_dir={"snnvit_jax.configs": "configs"},
)
