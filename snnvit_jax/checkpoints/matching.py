"""Which stored array is which of those wanted: by name, so that a structure may change."""

import collections

import jax


class OtherModelError(ValueError):
    """A checkpoint that is sound, but of another model."""


def match(folder, stored, template):
    """Finds each array of a template among those of a checkpoint.

    Arrays are matched by their names without the numbers of tuples and lists: the parts of an
    optimiser's chain are numbered, and a version may add or drop a part. Of arrays of the same
    name, the first wanted is the first stored; further ones are left out.

    Args:
      folder: of the checkpoint, for the error's message.
      stored: the pytree of dictionaries and lists in the checkpoint, of shapes and types.
      template: a pytree of arrays with the shapes, types and placement wanted.

    Returns:
      (abstract, places): `stored` as `jax.ShapeDtypeStruct`s, placed as wanted; and for each leaf
      of the template, which leaf of `stored` it is.

    Raises:
      OtherModelError: naming arrays that are missing, superfluous or of another shape or type.
    """
    given, wanted = _by_name(stored), _by_name(template)
    _check_same(folder, given, wanted)
    place_of = {name: place for place, name in enumerate(given)}
    places = [place_of[name] for name in wanted]
    shardings = dict(zip(places, (leaf.sharding for leaf in wanted.values()), strict=True))
    anywhere = next(iter(wanted.values())).sharding  # for what is left out
    abstract = [
        jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=shardings.get(place, anywhere))
        for place, leaf in enumerate(given.values())
    ]
    return jax.tree.unflatten(jax.tree.structure(stored), abstract), places


def _by_name(tree):
    """Returns {(name, how many of that name came before): leaf}, in the order of the leaves."""
    seen, named = collections.Counter(), {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        parts = (getattr(part, "key", getattr(part, "name", None)) for part in path)
        name = "/".join(str(part) for part in parts if part is not None)
        named[name, seen[name]] = leaf
        seen[name] += 1
    return named


def _check_same(folder, given, wanted):
    superfluous = {name for name, _ in given} - {name for name, _ in wanted}
    wrong = [
        f"{name[0]}: {_kind(given.get(name))} stored, {_kind(wanted.get(name))} wanted"
        for name in [*wanted, *(name for name in given if name[0] in superfluous)]
        if _kind(given.get(name)) != _kind(wanted.get(name))
    ]
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise OtherModelError(
            f"checkpoint {folder} is of another model or optimizer: {'; '.join(wrong[:3])}{more}; "
            "use another --workdir, or the settings it was started with"
        )


def _kind(leaf):
    """Type and shape as float32[3, 4]."""
    return "nothing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"
