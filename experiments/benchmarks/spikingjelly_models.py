"""SpikingJelly's own models under this project's names, in the same sizes."""

import dataclasses
from collections.abc import Callable

from spikingjelly.activation_based.model.qkformer import QKFormer
from spikingjelly.activation_based.model.spike_driven_transformer import SpikeDrivenTransformer
from spikingjelly.activation_based.model.spikformer import Spikformer


@dataclasses.dataclass(frozen=True)
class Peer:
    """A model of SpikingJelly.

    Attributes:
      build: function (image size, embed_dim, num_heads, depth, **T and num_classes) -> module.
      embed_dim: published channels of the last stage, and so on.
      differs: in what it is another network than this project's; the maps that biases belong to
        are followed by a normalisation, so that training them has no effect.
    """

    build: Callable
    embed_dim: int
    num_heads: int
    depth: int
    differs: str


# Everywhere: what a potential is reset by has no gradient, as published and as in this project.
NEURON = {"detach_reset": True}


def _spikformer(patch_size):
    def build(side, embed_dim, num_heads, depth, **sizes):
        sizes |= {"embed_dims": embed_dim, "num_heads": num_heads, "depths": depth}
        sizes |= {"img_size_h": side, "img_size_w": side, "patch_size": patch_size}
        return Spikformer(**sizes, **NEURON)

    return build


def _sdt(side, embed_dim, num_heads, depth, **sizes):
    del side  # any
    sizes |= {"embed_dims": embed_dim, "num_heads": num_heads, "depths": depth}
    return SpikeDrivenTransformer(**sizes, pooling_stat="0011", **NEURON)


def _qkformer(side, embed_dim, num_heads, depth, **sizes):
    del side
    sizes |= {"embed_dims": embed_dim, "num_heads": (num_heads,) * 3, "depths": (1, 2, depth - 3)}
    return QKFormer(**sizes, **NEURON)


_BARE = "no biases before normalisations"
PEERS = {
    "spikformer_4_384": Peer(_spikformer(patch_size=4), 384, 12, 4, _BARE),
    "spikformer_8_512_imagenet": Peer(_spikformer(patch_size=16), 512, 8, 8, _BARE),
    "sdt_2_512": Peer(_sdt, 512, 8, 2, "biases in the stem"),
    "qkformer_10_384_imagenet": Peer(
        _qkformer, 384, 6, 10, "biases in the stem, none behind attention"
    ),
}


def create(name, image_size, overrides, **sizes):
    """Returns a model and what differs in it.

    Args:
      name: of this project's registry, in `PEERS`.
      image_size: pixels.
      overrides: of embed_dim, num_heads and depth.
      **sizes: T and num_classes.
    """
    peer = PEERS[name]
    published = {key: getattr(peer, key) for key in ("embed_dim", "num_heads", "depth")}
    return peer.build(image_size, **(published | overrides), **sizes), peer.differs
