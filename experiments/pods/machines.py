"""What pods can do at their best, from their makers' documents."""

from typing import NamedTuple


class Machine(NamedTuple):
    """One kind of pod; rates are those of one device.

    Attributes:
      flops: dense bfloat16 operations in a second.
      memory: bytes.
      memory_rate: bytes in a second.
      links: ((devices, bytes in a second), ...): the rate at which a device sends to others, as
        long as there are no more devices than that.
      outside: bytes in a second that a device sends beyond a group of `group` devices.
      group: devices that share the fast network.
    """

    flops: float
    memory: float
    memory_rate: float
    links: tuple
    outside: float
    group: int


MACHINES = {
    # https://cloud.google.com/tpu/docs/v5e: 197 TFLOP/s, 16 GB, 819 GB/s; four ports with 400 GB/s
    # in both directions together. On less than the whole 16 x 16 torus the corners have two ports.
    # Between pods of 256 chips 6.4 Tbit/s, hence 3.1 GB/s for each chip.
    "v5e": Machine(197e12, 16e9, 819e9, ((128, 100e9), (256, 200e9)), 6.4e12 / 8 / 256, 256),
    # NVIDIA H100 SXM data sheet: 989.4 TFLOP/s without sparsity, 80 GB, 3.35 TB/s, NVLink 900 GB/s
    # in both directions together; DGX H100: one 400 Gbit/s port of InfiniBand for each GPU.
    "H100": Machine(989.4e12, 80e9, 3.35e12, ((8, 450e9),), 50e9, 8),
    # NVIDIA H200 SXM data sheet: as the H100, with 141 GB at 4.8 TB/s.
    "H200": Machine(989.4e12, 141e9, 4.8e12, ((8, 450e9),), 50e9, 8),
}


def all_reduce_seconds(machine, devices, size):
    """Returns the least time in which devices can add up arrays of the same size.

    Within a group each device sends 2 (n - 1) / n of the array (Patarasuk & Yuan, "Bandwidth
    optimal all-reduce algorithms", 2009). Of several groups, each device then exchanges its n-th
    part with its counterparts.

    Args:
      machine: a `Machine`.
      devices: how many.
      size: bytes of the arrays on one device.
    """
    inside = min(devices, machine.group)
    groups = devices // inside
    rate = next(rate for most, rate in machine.links if inside <= most)
    within = 2 * (inside - 1) / inside * size / rate
    return within + 2 * (groups - 1) / groups * size / inside / machine.outside
