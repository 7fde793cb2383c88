"""What the families of one stage share: their settings, and a linear map before a normalisation.

Such a model is a patch embedding of four pooling or non-pooling stages, and then blocks that keep
the number of tokens and channels: Spikformer, Spikingformer and the Spike-driven Transformer.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from snnvit_jax import layers
from snnvit_jax.common import values
from snnvit_jax.models import parts
from snnvit_jax.neurons import LIFNeuron, Neuron
from snnvit_jax.time_steps import masks

CIFAR_POOL = (False, False, True, True)
IMAGENET_POOL = (True, True, True, True)
_POOL = values.several(  # for each of the four stages
    values.Rule(
        "True or False (or 1 or 0)",
        lambda value: isinstance(value, (bool, np.bool_)) or values.whole(0, 1).fits(value),
    ),
    4,
)
ATTENTION_THRESHOLD = 0.5  # of the neurons behind a product of spikes, in all three families


@dataclasses.dataclass(frozen=True)
class SingleStageConfig:
    """The architecture of a family of one stage; derive its configuration from this one.

    Attributes:
      num_classes: outputs, >= 1.
      image_size: height and width in pixels, divisible by the patch stride.
      time_steps: T, the most time steps a layer can use, >= 1.
      embed_dim: D, channels of a token; divisible by 8 and by num_heads.
      num_heads: attention heads.
      depth: number of blocks.
      mlp_ratio: hidden channels of the MLP, in units of D.
      pool: for each of the four stages of the patch embedding, whether it halves the image.
      neuron: what all neurons share.
      drop_path: probability, in training, that an example skips a branch of the last block; it
        grows linearly from 0 in the first block.
      remat: "block" keeps only the inputs of the blocks for the backward pass and computes the
        rest again, in training (Chen et al., "Training Deep Nets with Sublinear Memory Cost",
        arXiv 1604.06174); "none" keeps everything.
      dtype: of the computation (parameters and batch statistics are float32).

    Raises:
      ValueError: naming the value that does not fit.
    """

    num_classes: int
    image_size: tuple[int, int]
    time_steps: int
    embed_dim: int
    num_heads: int
    depth: int
    mlp_ratio: float = 4.0
    pool: tuple[bool, ...] = CIFAR_POOL
    neuron: Neuron = dataclasses.field(default_factory=LIFNeuron)
    drop_path: float = 0.0
    remat: str = "none"
    dtype: DTypeLike = jnp.float32

    input_layer: ClassVar = "patch_embed/proj_conv"

    def __post_init__(self):
        masks.check_time_steps(self.time_steps)
        parts.check_whole_numbers(self, ("num_classes", "embed_dim", "num_heads", "depth"))
        parts.check_positive(self, ("mlp_ratio",))
        _POOL.check("pool", self.pool)
        parts.check_image_size(self, self.patch_stride)
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim={self.embed_dim} must be divisible by num_heads={self.num_heads}"
            )
        if self.embed_dim % 8:
            raise ValueError(f"embed_dim={self.embed_dim} must be divisible by 8")
        parts.check_training_settings(self)
        if self.hidden_dim < 1:
            raise ValueError(f"mlp_ratio={self.mlp_ratio} leaves the MLP without hidden channels")

    @property
    def patch_stride(self):
        """Pixels between two neighbouring tokens."""
        return 2 ** sum(self.pool)

    @property
    def hidden_dim(self):
        """Hidden channels of the MLP."""
        return int(self.embed_dim * self.mlp_ratio)

    @property
    def widths(self):
        """Channels after each of the four stages of the patch embedding."""
        return tuple(self.embed_dim // share for share in (8, 4, 2, 1))

    def drop_path_of(self, block):
        """Returns the probability of leaving out a branch of a block.

        Args:
          block: its number, from 0.
        """
        return parts.drop_path_of(self, block, self.depth)


def settings(image_size, **sizes):
    """Returns the settings published under a name: a CIFAR form has 32 pixels and pools twice.

    Args:
      image_size: side in pixels.
      **sizes: embed_dim, num_heads, depth.
    """
    return {"image_size": image_size, "pool": CIFAR_POOL if image_size == 32 else IMAGENET_POOL} | (
        sizes
    )


def small(name):
    """Returns sizes for a trial: one block.

    Args:
      name: of a model.
    """
    del name
    return {"embed_dim": 64, "num_heads": 2, "depth": 1}


def torch_name(path):
    """Returns the authors' name of a module, for example "block.0.attn.q_linear".

    Args:
      path: of the module, ("block_0", "attn", "q_linear").
    """
    return ".".join(path).replace("block_", "block.")


def unused_norms(model):
    """Returns the names of LayerNorms that authors construct in every block and never call.

    Args:
      model: of a family whose authors do.
    """
    return {
        f"block.{i}.{norm}.{leaf}"
        for i in range(model.config.depth)
        for norm in ("norm1", "norm2")
        for leaf in ("weight", "bias")
    }


def tensor_rules(mlp):
    """Returns `Family.tensor_rules` that divide the channels of q, k and v and the hidden ones.

    Channels are divided head by head (Shoeybi et al., "Megatron-LM", arXiv 1909.08053).

    Args:
      mlp: name of the linear maps of the MLP, before 1 and 2: "fc" or "mlp".
    """
    return (
        (r"/attn/[qkv]_(linear|conv)/kernel$", (None, "model")),
        (r"/attn/[qkv]_(linear|conv)/bias$", ("model",)),
        (r"/attn/[qkv]_bn/", ("model",)),
        (r"/attn/proj_(linear|conv)/kernel$", ("model", None)),
        (rf"/mlp/{mlp}1_(linear|conv)/kernel$", (None, "model")),
        (rf"/mlp/{mlp}1_(linear|conv)/bias$", ("model",)),
        (rf"/mlp/{mlp}1_bn/", ("model",)),
        (rf"/mlp/{mlp}2_(linear|conv)/kernel$", ("model", None)),
    )


def dropped(module, branch, probability, train):
    """Returns a residual branch, in training left out for some examples.

    Args:
      module: the bound block, which draws from the stream of random numbers "drop_path".
      branch: `Signal`.
      probability: of leaving it out, in [0, 1).
      train: whether the model is trained.
    """
    if not train or not probability:
        return branch
    return layers.drop_path(module.make_rng("drop_path"), branch.keep(), probability)


def normalised(name, x, features, config, train, *, use_bias=True, init=None):
    """Applies a linear map over the channels and its normalisation, owned by the calling module.

    Args:
      name: prefix of the two layers, for example "q" for q_conv and q_bn.
      x: signal [B, K, N, C].
      features: number of output channels.
      config: a `SingleStageConfig`.
      train: whether to normalise by batch statistics.
      use_bias: whether the linear map has a bias (without effect in training, before a
        normalisation; kept because published weights have it).
      init: initializer of the kernel, with a bias that starts at zero; None for those of a PyTorch
        convolution.

    Returns:
      A signal of currents [B, K, N, features].
    """
    as_conv = layers.uniform_fan_in(x.features)
    x = layers.Linear(
        features,
        use_bias=use_bias,
        dtype=config.dtype,
        kernel_init=init or as_conv,
        **({} if init else {"bias_init": as_conv}),
        name=f"{name}_conv",
    )(x)
    return layers.BatchNorm(name=f"{name}_bn")(x, train)
