"""How much memory a device has."""

import os

import jax


def device_bytes():
    """Returns the bytes that programs may take on a device of this process, or None if not known.

    Of a CPU it is all the machine's memory, however much of it is taken: what cannot fit there can
    nowhere.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        names = os.sysconf_names
        known = "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else None
    return (device.memory_stats() or {}).get("bytes_limit")
