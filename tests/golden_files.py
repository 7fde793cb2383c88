"""Reads tests/golden/*.npz: what the published PyTorch classes compute from random weights.

The files hold numbers only, in the authors' names and layouts. Spikes and images are returned in
this library's layout (channels last, "/" in names); weights, gradients and running statistics stay
as published.
"""

import dataclasses
import functools
import json
import pathlib
import re
from typing import Any

import numpy as np
from flax import traverse_util

import snnvit_jax as snn

FOLDER = pathlib.Path(__file__).parent / "golden"
SIZES = {"embed_dim": 64, "num_heads": 2, "depth": 2}


@dataclasses.dataclass(frozen=True)
class File:
    """What is to be known of a file that does not stand in it.

    Attributes:
      model: name of the model that its weights belong to, in smaller sizes.
      settings: in which it differs from its published form.
      channels_first: whether all signals in the file have channels first; otherwise only those of
        the patch embedding.
      tokens: whether signals behind the patch embedding have space as one axis here.
    """

    model: str
    settings: dict = dataclasses.field(default_factory=lambda: SIZES)
    channels_first: bool = True
    tokens: bool = True


FILES = {
    "spikformer_small": File("spikformer_4_384", channels_first=False),
    "spikformer_small_exact": File("spikformer_4_384", channels_first=False),
    "spikformer_imagenet_small": File("spikformer_8_512_imagenet", SIZES | {"image_size": 64}),
    "spikingformer_small": File("spikingformer_4_384"),
    "sdt_small": File("sdt_2_512"),
}
# Those of the forms for event cameras; their inputs are recordings.
DVS = {"embed_dim": 64, "num_heads": 4, "depth": 2, "image_size": 64}
EVENTS = {
    "spikformer_dvs_small": File("spikformer_2_256_dvs", DVS),
    "spikingformer_dvs_small": File("spikingformer_2_256_dvs", DVS),
    "sdt_dvs_small": File("sdt_2_256_dvs", DVS | {"num_heads": 8, "image_size": 32}),
    "qkformer_fixed_dvs_small": File("qkformer_2_256_dvs", DVS | {"num_heads": 16}),
}
# Those of families of several stages, whose tests stand beside those of their models.
META = {"embed_dim": (16, 32, 48, 64), "num_heads": 4, "depth": (2, 1), "image_size": 64}
RES = {"embed_dim": (16, 32, 64), "num_heads": (1, 2, 4), "depth": (1, 1, 2), "group_size": 16}
OTHERS = {
    "metaspikeformer_small": File("metaspikeformer_8_512_imagenet", META, tokens=False),
    "qkformer_fixed_small": File(
        "qkformer_4_384", {"embed_dim": 64, "num_heads": 8, "depth": 4, "mlp_ratio": 4.0}
    ),
    "spikingresformer_small": File("spikingresformer_cifar", RES, tokens=False),
}


@dataclasses.dataclass(frozen=True)
class Pass:
    """One forward pass: in inference mode, or one training step with its gradients.

    Attributes:
      logits: [B, classes] float32.
      spikes: {layer name: [T, B, ...] in {0, 1}}, channels last, in forward order.
      loss: mean cross entropy (training only).
      gradients: {published name: array in PyTorch's layout} (training only).
      running: {published name: running statistic after the step} (training only).
    """

    logits: np.ndarray
    spikes: dict[str, np.ndarray]
    loss: float | None
    gradients: dict[str, np.ndarray]
    running: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Golden:
    """One file.

    Attributes:
      name: of the file.
      meta: how it was made.
      images: [B, H, W, 3], or recordings [B, T, H, W, 2].
      labels: [B].
      weights: {published name: array in PyTorch's layout}.
      logits64: [B, classes] in inference mode, computed in float64.
      eval: inference pass.
      train: training pass; None for the file with exact arithmetic.
    """

    name: str
    meta: dict[str, Any]
    images: np.ndarray
    labels: np.ndarray
    weights: dict[str, np.ndarray]
    logits64: np.ndarray
    eval: Pass
    train: Pass | None

    def model(self, **overrides):
        """Creates the model that the weights belong to."""
        file = (FILES | EVENTS | OTHERS)[self.name]
        return snn.create_model(file.model, 10, time_steps=4, **file.settings, **overrides)

    @property
    def unused(self):
        """Names of the weights that the authors construct and never use."""
        return list(self.meta["params_without_grad"]) if self.train else []


@functools.cache
def read(name):
    """Returns the Golden called `name`, a key of FILES, EVENTS or OTHERS."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = dict(file)
    meta = json.loads(str(arrays["meta"]))
    return Golden(
        name=name,
        meta=meta,
        images=np.moveaxis(arrays["x"], -3, -1),
        labels=arrays["y"],
        weights=_below("sd/", arrays),
        logits64=arrays["eval/logits64"],
        eval=_read_pass("eval", name, meta["lif_order"], arrays),
        train=_read_pass("train", name, meta["lif_order"], arrays)
        if "train/logits" in arrays
        else None,
    )


def _read_pass(mode, file, order, arrays):
    spikes = {}
    for published in order:
        shape = arrays[f"{mode}/spikes_shape/{published}"]
        bits = np.unpackbits(arrays[f"{mode}/spikes/{published}"])[: np.prod(shape)]
        spikes[_layer_name(published)] = _channels_last(file, published, bits.reshape(shape))
    return Pass(
        logits=arrays[f"{mode}/logits"],
        spikes=spikes,
        loss=float(arrays["train/loss"]) if mode == "train" else None,
        gradients=_below(f"{mode}/grad/", arrays),
        running=_below(f"{mode}/new/", arrays),
    )


def _below(prefix, arrays):
    return {key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)}


def _layer_name(published):
    """With "/" for "." and "block_0" for "block.0"."""
    return re.sub(r"\.(\d+)", r"_\1", published).replace(".", "/")


def _channels_last(file, published, spikes):
    """By layer, not by shape: [T, B, 32, 32, 32] may be either layout."""
    T, B, *_ = spikes.shape
    if published.endswith("talking_heads_lif"):  # T B heads 1 channels-of-a-head
        return spikes.reshape(T, B, 1, -1)
    if published.endswith("activation_attn"):  # T B heads patches tokens, here too
        return spikes
    in_patch_embedding, file = published.startswith("patch_embed"), (FILES | EVENTS | OTHERS)[file]
    channels_first = in_patch_embedding or file.channels_first
    spikes = np.moveaxis(spikes, 2, -1) if channels_first else spikes
    if in_patch_embedding or not file.tokens or spikes.ndim == 3:  # T B C, without space
        return spikes
    return spikes.reshape(T, B, -1, spikes.shape[-1])  # T B N C


# Not the second number of a stage, "downsample1_2".
_NUMBER_IN_LIST = r"(?<!downsample\d)(?<!ConvBlock\d)_(\d+)(?=[._])"


def as_published(tree):
    """Returns variables or gradients by published name and layout; scores are left out.

    Written independently of `snnvit_jax.weights.convert`. Linear maps come out as [out, in] even
    where the published form is a convolution over one point.
    """
    leaves = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    published = {}
    for path, leaf in traverse_util.flatten_dict(tree).items():
        if path[-1] == "time_step_score":
            continue
        array = np.asarray(leaf)
        array = {2: array.T, 4: array.transpose(3, 2, 0, 1) if array.ndim == 4 else array}.get(
            array.ndim, array
        )
        name = ".".join([*path[:-1], leaves.get(path[-1], path[-1])])
        published[re.sub(_NUMBER_IN_LIST, r".\1", name)] = array
    return published
