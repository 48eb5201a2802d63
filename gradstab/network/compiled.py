"""Compiled programs that live as long as what they were compiled for."""

import functools

import jax


def compiled(owner, function, /, *static):
    """``function(owner, *static, ...)`` under jit, compiled once for this owner.

    With static arguments, `jax.jit` itself would keep every network that was ever
    analysed, its constants among them, until the process ends. Here the programs go
    when the owner goes.

    Args:
        owner: a network, block or scan.
        function: takes the owner, the static arguments, then arrays.
        *static: compared by identity.
    """
    programs = owner.__dict__.setdefault("_compiled", {})
    key = (function, *map(id, static))
    if key not in programs:
        # The static arguments are kept too: an id is free for reuse with its object.
        program = jax.jit(functools.partial(function, owner, *static))
        programs[key] = program, static
    return programs[key][0]
