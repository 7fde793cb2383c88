"""Names of tensors without what wrappers of a PyTorch module put before them."""

# First parts of a name: of torch.nn.DataParallel and DistributedDataParallel ("module"), and of
# training classes that keep the network in an attribute ("model", "net", "network").
_FRONT = ("module", "model", "net", "network")
# Parts at any place, because parts of a model can be wrapped, too: torch.compile; Lightning Fabric;
# fully sharded data parallel; activation checkpointing. No module of a model begins with "_".
_ANYWHERE = ("_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# What torch.optim.swa_utils.AveragedModel counts; no weight.
_COUNTERS = ("n_averaged",)


def unwrap(tensors):
    """Returns tensors by the names that the bare module has.

    "_orig_mod", "_forward_module", "_fsdp_wrapped_module" and "_checkpoint_wrapped_module" go
    wherever they stand in a name, "module", "model", "net" and "network" from its front, as many as
    there are: "module._orig_mod.head.bias" becomes "head.bias". The counter "n_averaged" goes, too.

    Args:
      tensors: {name: anything}.

    Returns:
      {name: the same}, in the same order.

    Raises:
      ValueError: naming two tensors whose names become one.
    """
    origin, unwrapped = {}, {}
    for name, tensor in tensors.items():
        bare = bare_name(str(name))
        if bare in origin:
            raise ValueError(
                f"{origin[bare]!r} and {name!r} are both named {bare!r} without the names of "
                "wrappers; keep one of them"
            )
        origin[bare], unwrapped[bare] = name, tensor
    return {name: tensor for name, tensor in unwrapped.items() if name not in _COUNTERS}


def bare_name(name):
    """Returns a tensor's name without those of wrappers, see `unwrap`.

    Args:
      name: of a tensor, its parts separated by dots.
    """
    *modules, leaf = [part for part in name.split(".") if part not in _ANYWHERE] or [name]
    while modules and modules[0] in _FRONT:
        modules = modules[1:]
    return ".".join([*modules, leaf])
