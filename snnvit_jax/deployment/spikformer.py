"""Spikformer with a fixed schedule: how its layers are wired, and its forward pass.

The forward pass mirrors `models.spikformer`; what differs is that every signal exists only at the
time steps that have an effect, and that normalisations are gone.
"""

import dataclasses

import jax
import jax.numpy as jnp

from snnvit_jax.deployment import signals
from snnvit_jax.deployment.signals import Signal
from snnvit_jax.deployment.steps import Wiring
from snnvit_jax.layers import layers
from snnvit_jax.models.spikformer import ATTENTION_THRESHOLD, SpikformerConfig

# number of each stage of the patch embedding -> its channels are D / this
STAGES = {"": 8, "1": 4, "2": 2, "3": 1}


def wiring(config):
    """Returns how the LIF layers are wired.

    Args:
      config: the `SpikformerConfig`.

    Returns:
      ({layer name: Wiring} in forward order, names of the layers that the head averages).
    """
    D, suffix = config.embed_dim, config.form.suffix
    wirings = {}

    def listen(path, name, features, sources, linear):
        norm = f"{path}/{name.replace('lif', 'bn')}"
        wirings[f"{path}/{name}"] = Wiring(features, sources, linear=f"{path}/{linear}", norm=norm)
        return (f"{path}/{name}",)

    stage = ()
    for number, features in STAGES.items():
        conv = f"proj_conv{number}"
        stage = listen("patch_embed", f"proj_lif{number}", D // features, stage, conv)
    stream = stage + listen("patch_embed", "rpe_lif", D, stage, "rpe_conv")
    for i in range(config.depth):
        attn, mlp = f"block_{i}/attn", f"block_{i}/mlp"
        qkv = [listen(attn, f"{x}_lif", D, stream, f"{x}_{suffix}")[0] for x in "qkv"]
        product = f"{attn}/attn_lif"
        wirings[product] = Wiring(D, tuple(qkv), product=True, threshold=ATTENTION_THRESHOLD)
        stream += listen(attn, "proj_lif", D, (product,), f"proj_{suffix}")
        hidden = listen(mlp, "fc1_lif", config.hidden_dim, stream, f"fc1_{suffix}")
        stream += listen(mlp, "fc2_lif", D, hidden, f"fc2_{suffix}")
    return wirings, stream


@dataclasses.dataclass(frozen=True, eq=False)  # jax.jit wants a hash
class Program:
    """A Spikformer with its time steps: called with weights and images, it is a pure function.

    Attributes:
      config: the model's architecture.
      wirings: {layer name: Wiring}, from `wiring`.
      steps: {layer name: steps at which it emits}, from `steps.effective_steps`.
      dtype: of spikes and kernels; currents, membrane potentials and the head have at least
        float32.
    """

    config: SpikformerConfig
    wirings: dict[str, Wiring]
    steps: dict[str, tuple[int, ...]]
    dtype: jnp.dtype

    def __call__(self, weights, images):
        """Returns the logits [B, classes] of images [B, H, W, C]."""
        return self.run(weights, images)[0]

    def run(self, weights, images):
        """Returns the logits, and the spikes of every layer that is left.

        Args:
          weights: {"module/kernel" or "module/bias": array} of all layers that are left.
          images: [B, H, W, C], normalised.

        Returns:
          (logits [B, classes], {layer name: `Signal`}), in forward order.
        """
        run = _Run(self, weights)
        x = _patch_embedding(run, images)
        for i in range(self.config.depth):
            x = signals.add(x, _attention(run, x, f"block_{i}/attn"))
            hidden = run.layer(x, f"block_{i}/mlp/fc1_lif")
            x = signals.add(x, run.layer(hidden, f"block_{i}/mlp/fc2_lif"))
        features = signals.mean(x, self.config.time_steps)
        return features @ weights["head/kernel"] + weights["head/bias"], run.spikes


def _patch_embedding(run, images):
    """Returns tokens [B, K, N, D] of images [B, H, W, C]."""
    pool = run.program.config.pool
    x = _pool(run.first_layer(images, "patch_embed/proj_lif"), pool[0])
    for i in range(1, 4):
        x = _pool(run.layer(x, f"patch_embed/proj_lif{i}"), pool[i])
    x = signals.add(x, run.layer(x, "patch_embed/rpe_lif"))
    B, K, H, W, D = x.values.shape
    return x.map(lambda values: values.reshape(B, K, H * W, D))


def _attention(run, x, path):
    q, k, v = (run.layer(x, f"{path}/{name}_lif") for name in "qkv")
    product = signals.attend(q, k, v, run.program.config.num_heads)
    return run.layer(run.neurons(product, f"{path}/attn_lif"), f"{path}/proj_lif")


def _pool(x, halve):
    return x.map(pool_spikes) if halve else x


def pool_spikes(values):
    """Max-pools as the model does: 3x3 windows, stride 2, padding 1; but one axis after the other.

    Args:
      values: [B, K, H, W, C], >= 0, H and W even.

    Returns:
      [B, K, H / 2, W / 2, C].
    """
    for axis in (2, 3):
        side = values.shape[axis]
        even, odd = (jax.lax.slice_in_dim(values, i, side, 2, axis) for i in (0, 1))
        shift = [(0, 0, 0)] * values.ndim
        shift[axis] = (1, -1, 0)  # zero before the first: no spike, and no value is smaller
        before = jax.lax.pad(odd, jnp.zeros((), values.dtype), shift)
        values = jnp.maximum(jnp.maximum(before, even), odd)
    return values


def _convolve(x, kernel):  # N H W C
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=wide,
    )


def _linear(values, kernel):  # B K ... C
    """Convolution or matrix product, by the kernel's shape, of every time step."""
    if kernel.ndim == 4:
        return layers.fold_time(lambda x: _convolve(x, kernel), values)
    wide = jnp.promote_types(values.dtype, jnp.float32)
    return jnp.matmul(values, kernel, preferred_element_type=wide)


class _Run:
    """One pass: applies layers by name, only where they have an effect; keeps what they emit."""

    def __init__(self, program, weights):
        self.program, self.weights, self.spikes = program, weights, {}

    def first_layer(self, images, name):
        """The image is the same at every step, so its current is computed once."""
        x = Signal(images.astype(self.program.dtype)[:, None], (0,))
        drive = self._drive(x, name)
        if drive.steps:
            drive = signals.repeat(drive.at(0), self.program.config.time_steps)
        return self.neurons(drive, name)

    def layer(self, x, name):
        """Linear map and neurons."""
        return self.neurons(self._drive(x, name), name)

    def neurons(self, drive, name):
        """Neurons alone."""
        if not self.program.steps[name]:
            return drive
        spikes = signals.fire(
            drive,
            self._bias(name),
            self.program.steps[name],
            threshold=self.program.wirings[name].threshold,
            tau=self._tau(name),
            reset=self.program.config.neuron.reset,
            dtype=self.program.dtype,
        )
        self.spikes[name] = spikes
        return spikes

    def _drive(self, x, name):
        """What arrives, bias apart; nothing for a layer that does not emit."""
        wiring, steps = self.program.wirings[name], self.program.steps[name]
        if not steps:
            shape = (x.values.shape[0], *x.values.shape[2:-1], wiring.features)
            return signals.silence(shape, self.program.dtype)
        kernel = self.weights[f"{wiring.linear}/kernel"]
        return x.until(steps[-1]).map(lambda values: _linear(values, kernel))

    def _bias(self, name):
        linear = self.program.wirings[name].linear
        wide = jnp.promote_types(self.program.dtype, jnp.float32)
        return jnp.zeros((), wide) if linear is None else self.weights[f"{linear}/bias"]

    def _tau(self, name):
        neuron = self.program.config.neuron
        learned = {"if": None, "lif": neuron.tau}
        return learned[neuron.kind] if neuron.kind in learned else self.weights[f"{name}/tau"]
