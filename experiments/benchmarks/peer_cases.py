"""What peers.py measures: models and their sizes, and the sides that take part."""

import dataclasses

OURS, PEER, COMPILED = "snnvit_jax", "SpikingJelly", "SpikingJelly, compiled"
# {side: (script, whether torch.compile is used)}
SIDES = {
    OURS: ("worker_snnvit_jax.py", False),
    PEER: ("worker_spikingjelly.py", False),
    COMPILED: ("worker_spikingjelly.py", True),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """What the sides compute.

    Attributes:
      model: a name of the registry.
      image_size: pixels.
      batch_size: images.
      dtype: of the computation; SpikingJelly's under autocast if it is not float32.
      calls: steps that one repetition takes, so that it lasts long enough to be timed.
      time_steps: T.
      overrides: of the model's sizes.
      alone: whether SpikingJelly has no such model, so that only this project is measured.
    """

    model: str
    image_size: int
    batch_size: int
    dtype: str
    calls: int
    time_steps: int = 4
    overrides: dict = dataclasses.field(default_factory=dict)
    alone: bool = False

    @property
    def name(self):
        """For the reader."""
        return (
            f"{self.model}, {self.image_size}x{self.image_size}, T={self.time_steps}, "
            f"batch {self.batch_size}, {self.dtype}"
        )


def _family(model, image_size=32, alone=False):
    return Case(model, image_size, batch_size=32, dtype="float32", calls=1, alone=alone)


TINY = {"embed_dim": 32, "num_heads": 2, "depth": 1}
CASES = {
    "cpu": [_family("spikformer_4_384")],
    # Every family in its form for CIFAR. SpikingJelly's QKFormer is the form for ImageNet, which
    # pools twice more: at 64 pixels its stages have sides of 16, 8 and 4 (128 take four times the
    # memory). Meta-SpikeFormer was not published for small images: the form for ImageNet.
    "families": [
        _family("spikformer_4_384"),
        _family("spikingformer_4_384", alone=True),
        _family("sdt_2_512"),
        _family("qkformer_4_384", alone=True),
        _family("qkformer_10_384_imagenet", image_size=64),
        _family("spikingresformer_cifar", alone=True),
        _family("metaspikeformer_8_384_imagenet", alone=True),
    ],
    "gpu": [
        Case("spikformer_4_384", 32, 256, "bfloat16", 20),
        Case("spikformer_8_512_imagenet", 224, 64, "bfloat16", 10),
    ],
    # Seconds: to see that everything works before a quiet machine's or a GPU's time is spent.
    "smoke": [
        Case("spikformer_4_384", 32, 2, "bfloat16", 2, overrides=TINY),
        Case("spikformer_8_512_imagenet", 32, 2, "bfloat16", 2, overrides=TINY),
        Case("spikingformer_4_384", 32, 2, "float32", 2, overrides=TINY, alone=True),
        Case("sdt_2_512", 32, 2, "float32", 2, overrides=TINY),
        Case("qkformer_10_384_imagenet", 32, 2, "float32", 2, overrides=TINY | {"depth": 4}),
    ],
}


def sides(case, device):
    """Returns the names of the sides that measure a case: torch.compile on a GPU alone.

    On a CPU it takes minutes.
    """
    if case.alone:
        return [OURS]
    return list(SIDES) if device == "gpu" else [OURS, PEER]
