"""Every family in a small size that fires, for the tests that all of them pass."""

import dataclasses
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import snnvit_jax as snn
from snnvit_jax.models import FAMILIES
from snnvit_jax.neurons.kinds import KINDS
from snnvit_jax.time_steps import masks

# Every family in a small size, and what else a family has that changes its forward pass.
SMALL = {"embed_dim": 16, "num_heads": 2, "depth": 1, "mlp_ratio": 2.0, "image_size": 8}
POOLED = SMALL | {"image_size": 32}
THREE_STAGES = SMALL | {"embed_dim": 32, "depth": 3}
FOUR_STAGES = {"embed_dim": (4, 4, 8, 8), "num_heads": 2, "depth": (1, 1), "image_size": 32}
RES_STAGES = {
    **{"embed_dim": (8, 8, 16), "num_heads": (1, 2, 2), "depth": (1, 1, 1), "group_size": 8},
    **{"mlp_ratio": 2.0, "image_size": 8},
}
FORMS = {
    "spikformer": ("spikformer_2_384", SMALL),
    "spikingformer": ("spikingformer_2_384", SMALL),
    "sdt": ("sdt_2_256", SMALL),
    "qkformer": ("qkformer_4_384", THREE_STAGES),
    "metaspikeformer": ("metaspikeformer_8_512_imagenet", FOUR_STAGES),
    "spikingresformer": ("spikingresformer_cifar", RES_STAGES),
    "spikingformer, imagenet": ("spikingformer_8_384_imagenet", POOLED),
    "sdt, imagenet": ("sdt_8_384_imagenet", POOLED),
    "sdt, as many hidden channels": ("sdt_2_256", SMALL | {"mlp_ratio": 1.0}),
    "qkformer, imagenet": (
        "qkformer_10_384_imagenet",
        THREE_STAGES | {"depth": 4, "image_size": 32},
    ),
}
FAMILY_FORMS = [form for form in FORMS if "," not in form]
# Where one value is not one number for all families.
TWO_BLOCKS = {
    "qkformer": {"depth": 4},
    "metaspikeformer": {"depth": (2, 1)},
    "spikingresformer": {"depth": (1, 1, 2)},
}
WIDE = {
    "qkformer": {"embed_dim": 64, "mlp_ratio": 4.0},
    "qkformer, imagenet": {"embed_dim": 64, "mlp_ratio": 4.0},
    "metaspikeformer": {"embed_dim": (16, 32, 64, 64)},
    "spikingresformer": {"embed_dim": (32, 64, 64), "mlp_ratio": 4.0},
}
ALL = dict(FAMILIES)  # without what tests register
NEURONS = [{"kind": kind} for kind in KINDS] + [{"kind": "plif", "tau": 2.5, "reset": "soft"}]


def tiers(cases, *quick):
    """Returns cases as parameters of a test: what is not among the quick ones is marked as slow.

    Each family's forward pass is compiled in other tests of the first tier; the second repeats, for
    the families that take longest to compile, what the quick ones show.
    """
    return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]


class Small(NamedTuple):
    """A small model with variables that make it fire, and images."""

    model: Any
    variables: dict
    images: np.ndarray
    names: list


def small(lively, form, dtype="float32", time_steps=4, **settings):
    name, sizes = FORMS[form]
    model = snn.create_model(name, 3, time_steps=time_steps, **sizes | settings)
    variables = lively(model)
    for layers, shift in BALANCE.get(form, BALANCE.get(family_of(form), {})).items():
        variables = shifted(variables, layers, shift)
    side = sizes["image_size"]
    images = np.random.default_rng(0).normal(size=(3, side, side, 3)).astype(dtype)
    if dtype != "float32":
        model = type(model)(dataclasses.replace(model.config, dtype=jnp.dtype(dtype)))
        variables = jax.tree.map(lambda x: np.asarray(x, dtype), variables)
    return Small(model, variables, images, list(masks.scores(variables["params"])))


# {pattern of normalisations: what their biases change by}, so that no layer fires always or never:
# of currents that are added, and of many layers one behind the other.
BRANCHES = {r"(proj|fc2|mlp2|rpe)_bn$": -1.25}
BALANCE = {
    "spikingformer": BRANCHES,
    "sdt": BRANCHES,
    "qkformer": {r"_bn$": -1.0},
    "qkformer, imagenet": {r"_bn$": -1.0, "stage2_1/tssa/q_bn": -1.0, r"attn/[qkv]_bn": 1.0},
    "metaspikeformer": {r"[qkv]_conv_1$": 1.5, r"block4_0/mlp/fc2_bn$": -5.0},
}


def family_of(form):
    return form.split(",")[0]


def shifted(variables, layers, shift):
    """Variables with other biases of the normalisations whose names match a pattern."""
    flat = traverse_util.flatten_dict(variables, sep="/")
    for path in flat:
        if path.endswith("/bias") and re.search(layers, path.removesuffix("/bias")):
            flat[path] = flat[path] + shift
    return traverse_util.unflatten_dict(flat, sep="/")
