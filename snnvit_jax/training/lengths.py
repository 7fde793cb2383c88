"""How long the parts of a training are: shares of its schedule, or epochs.

Each length has two keys: `warmup`, a share that follows the length of the training, and
`warmup_epochs` (or `..._epoch` for a point in time), which counts instead where it is set.
"""


def in_epochs(settings, name, total):
    """Returns a length in epochs, counted from the start of the schedule; None if neither is set.

    Args:
      settings: the part of the configuration that holds both keys.
      name: of the share, such as "warmup".
      total: epochs of the schedule.
    """
    epochs = settings[epochs_key(settings, name)]
    if epochs is not None:
        return epochs
    # Rounded, so that 20 / 310 of 310 epochs end with the twentieth, not within the next.
    return None if settings[name] is None else round(settings[name] * total, 9)


def epochs_key(settings, name):
    """Returns the key that gives a length in epochs.

    Args:
      settings: the part of the configuration that holds it.
      name: of the share, such as "warmup".
    """
    return next(key for key in (f"{name}_epochs", f"{name}_epoch") if key in settings)


def described(settings, name, total):
    """Returns a length as an error or a log names it: with the key that it comes from.

    Args:
      settings: the part of the configuration that holds its keys.
      name: of the share, such as "warmup".
      total: epochs of the schedule.
    """
    key, epochs = epochs_key(settings, name), in_epochs(settings, name, total)
    if epochs is None or settings[key] is not None:
        return f"{key}={epochs}"
    return f"{name}={settings[name]:.4g} ({epochs:.4g} epochs)"
