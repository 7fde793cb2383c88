"""The classifier: a mean over time and space, and one matrix product."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp


class Head(nn.Module):
    """Logits [B, classes], float32, of the mean of a signal over all T time steps and all tokens.

    Attributes:
      num_classes: outputs.
      use_bias: whether a bias is added.
      kernel_init: initializer of the kernel [C, classes].
      bias_init: initializer of the bias.
    """

    num_classes: int
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.normal(0.02)
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x):
        """Returns [B, classes] of a signal [B, K, ..., C]."""
        features = self.features(x)
        shape = (features.shape[-1], self.num_classes)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        weights = {"kernel": kernel}
        logits = jnp.dot(features, kernel)
        if self.use_bias:
            weights["bias"] = self.param("bias", self.bias_init, shape[1:], jnp.float32)
            logits = logits + weights["bias"]
        x.trace("readout", self.path, (x,), function=token_mean, weights=weights)
        return logits

    def features(self, x):
        """Returns the mean over time and tokens, [B, C], at least float32."""
        if not x.plan:
            return jnp.mean(wide(x.values), axis=tuple(range(1, len(x.shape) - 1)))
        constant = self.get_variable("constants", "features")
        weight = x.time_steps if x.static else 1
        total = jnp.sum(token_mean(x.values), axis=1) * weight
        return total / x.time_steps + constant


def token_mean(values):
    """Returns the mean over space, [B, K, C], at least float32.

    Args:
      values: [B, K, ..., C].
    """
    return jnp.mean(wide(values), axis=tuple(range(2, values.ndim - 1)))


def wide(values):
    """Returns values in at least float32.

    Args:
      values: any array.
    """
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))
