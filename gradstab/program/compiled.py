"""Compiled programs that live as long as what they were compiled for."""

import functools
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import jax

from gradstab.program.cache import Cache


class Owner(Protocol):
    """Something that programs are compiled for: a network, a block, a scan."""

    @property
    def programs(self) -> Cache:
        """Those that were."""
        ...


def compiled(
    owner: Owner, function: Callable, /, *static: Hashable
) -> Callable[..., Any]:
    """``function(owner, *static, ...)`` under jit, compiled once for this owner.

    With static arguments, `jax.jit` itself would keep every network that was ever
    analysed, its constants among them, until the process ends. Here the programs go
    when the owner goes.

    Args:
        owner: a network, block or scan; equal ones are the same object, see
            `gradstab.network.find_layers`.
        function: takes the owner, the static arguments, then arrays. It should be one
            object for all calls: a function of a module, not a lambda.
        *static: compared by equality.
    """
    return owner.programs.get(
        (function, static),
        lambda: jax.jit(functools.partial(function, owner, *static)),
    )
