"""Whether a batch can fit into the memory of a device, asked before anything is compiled."""

import math

from snnvit_jax.training import memory
from snnvit_jax.xla.memory import device_bytes

_PROBED = 8  # examples whose needs are traced
# Bytes that networks keep for each value of an image, at most. A batch that fits by this measure is
# not even traced.
_KEPT_FOR_EACH_VALUE = 200_000
_GB = 1e9


def check(experiment, available=None):
    """Raises ValueError naming the largest batch that may fit, if this one cannot.

    Refused is only what needs more than there is without counting all that it needs, so a batch
    that passes may still be too large.

    Args:
      experiment: an `Experiment`.
      available: bytes of a device; None asks the device.
    """
    available = device_bytes() if available is None else available
    if available is None or _is_small(experiment, available):
        return
    config, shapes = experiment.config, experiment.state_shapes
    state = memory.state_bytes(shapes)
    kept = memory.kept_bytes(experiment.procedure, shapes, experiment.image_shape, _PROBED)
    # Over all devices: layouts that divide what is kept over more axes than the batch need least.
    apart = experiment.mesh.size * config.accumulate
    needed = state + kept / _PROBED * config.batch_size / apart
    if needed > available:
        raise ValueError(_refusal(config, experiment, state, kept / _PROBED, needed, available))


def _is_small(experiment, available):
    values = math.prod(experiment.image_shape) * experiment.config.batch_size
    return values * _KEPT_FOR_EACH_VALUE < available


def _refusal(config, experiment, state, each, needed, available):
    step = experiment.mesh.shape["data"] * config.accumulate
    most = (available - state) / each * experiment.mesh.size * config.accumulate
    most = int(most) // step * step
    fits = f"at most batch_size={most} can fit" if most > 0 else "not even the smallest batch fits"
    return (
        f"batch_size={config.batch_size} needs more than the {available / _GB:.1f} GB of a device: "
        f"{needed / _GB:.1f} GB without what is needed besides; {fits}. Take a smaller one, or "
        f"accumulate={2 * config.accumulate}, model.remat=block, or model.dtype=bfloat16"
    )
