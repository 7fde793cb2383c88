"""The classifier: a mean over time and space, and one matrix product."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from snnvit_jax.common.parameters import parameter

# Collection in which a head leaves its logits at each time step, [B, T, classes], where an
# application names it as mutable.
STEP_LOGITS = "step_logits"


class Head(nn.Module):
    """Logits [B, classes], float32, of the mean of a signal over all T time steps and all tokens.

    The product with the kernel may come before the mean over time or behind it. It comes before
    where the signal has no space: then it reads what a neuron emits at each step, as spikes.

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
        if not x.plan and x.price is not None:
            x = x.keep()  # read twice, where its logits at each step are asked for
        shape = (x.features, self.num_classes)
        kernel = parameter(self, "kernel", self.kernel_init, shape)
        weights = {"kernel": kernel}
        if self.reads_steps(x) and not x.plan:
            logits = jnp.mean(jnp.dot(wide(x.values), kernel), axis=1)
        else:
            logits = jnp.dot(self.features(x), kernel)
        if self.use_bias:
            weights["bias"] = parameter(self, "bias", self.bias_init, shape[1:])
            logits = logits + weights["bias"]
        if self.is_mutable_collection(STEP_LOGITS) and not self.is_initializing():
            self.sow(STEP_LOGITS, "logits", self._of_each_step(x, **weights))
        x.trace("readout", self.path, (x,), function=token_mean, weights=weights)
        return logits

    @staticmethod
    def _of_each_step(x, kernel, bias=0.0):
        """[B, T, classes], whose mean over time are the logits."""
        logits = jnp.dot(token_mean(x.values), kernel) + bias
        return jnp.repeat(logits, x.time_steps, axis=1) if x.static else logits

    @staticmethod
    def reads_steps(x):
        """Returns whether it multiplies a signal at each time step, and not its mean.

        Args:
          x: `Signal` [B, K, ..., C].
        """
        return len(x.shape) == 3

    def features(self, x):
        """Returns the mean over time and tokens, [B, C], at least float32."""
        if not x.plan:
            return jnp.mean(wide(x.values), axis=tuple(range(1, len(x.shape) - 1)))
        constant = self.get_variable("constants", "features", 0.0)
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
