"""The programs within a program: of loops, choices and functions compiled on their own."""


def inner_programs(params):
    """Yields the programs among an equation's parameters.

    Of those that compute the same, as each backend takes it best, the last: that of all others.

    Args:
      params: of a jaxpr's equation.
    """
    if params.get("branches_platforms"):
        params = {"branches": params["branches"][-1:]}
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            inner = getattr(item, "jaxpr", item)
            if hasattr(inner, "eqns"):
                yield inner
