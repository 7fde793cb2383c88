"""Networks that others trained on GPUs, to compare with: ResNet-50 and ViT-B/16, in bfloat16."""

import functools

import flax.linen as nn
import jax.numpy as jnp

BF16 = jnp.bfloat16


class Bottleneck(nn.Module):
    """Three convolutions and a way around them; the second one strides (v1.5)."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x):  # B H W C
        """Returns features with four times `features` channels."""
        conv = functools.partial(nn.Conv, use_bias=False, dtype=BF16)
        norm = functools.partial(nn.BatchNorm, use_running_average=False, dtype=BF16)
        strides = (self.stride, self.stride)
        y = nn.relu(norm()(conv(self.features, (1, 1))(x)))
        y = nn.relu(norm()(conv(self.features, (3, 3), strides)(y)))
        y = norm()(conv(4 * self.features, (1, 1))(y))
        if x.shape != y.shape:
            x = norm()(conv(4 * self.features, (1, 1), strides)(x))
        return nn.relu(x + y)


class ResNet50(nn.Module):
    """He et al., arXiv 1512.03385, in the form v1.5; statistics of the batch."""

    @nn.compact
    def __call__(self, x):  # B H W 3
        """Returns logits, B 1000."""
        x = nn.Conv(64, (7, 7), (2, 2), use_bias=False, dtype=BF16)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=False, dtype=BF16)(x))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for stage, depth in enumerate((3, 4, 6, 3)):
            for block in range(depth):
                x = Bottleneck(64 << stage, 2 if stage and not block else 1)(x)
        return nn.Dense(1000, dtype=BF16)(x.mean((1, 2)))


class Block(nn.Module):
    """Attention and MLP of a vision transformer, each on what is normalised before."""

    @nn.compact
    def __call__(self, x):  # B N D
        """Returns tokens, as many."""
        y = nn.LayerNorm(dtype=BF16)(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=12, dtype=BF16)(y)
        y = nn.gelu(nn.Dense(4 * x.shape[-1], dtype=BF16)(nn.LayerNorm(dtype=BF16)(x)))
        return x + nn.Dense(x.shape[-1], dtype=BF16)(y)


class ViTB16(nn.Module):
    """Dosovitskiy et al., arXiv 2010.11929; the head of pre-training, no dropout."""

    @nn.compact
    def __call__(self, x):  # B H W 3
        """Returns logits, B 1000."""
        x = nn.Conv(768, (16, 16), (16, 16), dtype=BF16)(x).reshape(len(x), -1, 768)
        first = self.param("class", nn.initializers.zeros, (1, 1, 768))
        x = jnp.concatenate([jnp.broadcast_to(first, (len(x), 1, 768)).astype(BF16), x], 1)
        places = self.param("places", nn.initializers.normal(0.02), (1, x.shape[1], 768))
        x = x + places.astype(BF16)
        for _ in range(12):
            x = Block()(x)
        x = nn.LayerNorm(dtype=BF16)(x[:, 0])
        return nn.Dense(1000, dtype=BF16)(jnp.tanh(nn.Dense(768, dtype=BF16)(x)))
