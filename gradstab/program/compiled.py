"""Compiled programs that live as long as what they were compiled for."""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import jax

from gradstab import _compat
from gradstab.program.cache import Cache
from gradstab.program.compiling import quick_options
from gradstab.program.work import Work, work_of

# A program of less work runs in a few milliseconds however well it is compiled.
_FEW_BYTES, _FEW_FLOPS, _FEW_FUNCTIONS = 2**26, 2**31, 2**22


class Owner(Protocol):
    """Something that programs are compiled for: a network, a block, a scan."""

    @property
    def programs(self) -> Cache:
        """Those that were."""
        ...

    @property
    def eqns(self) -> Sequence[_compat.JaxprEqn]:
        """What it evaluates."""
        ...


def compiled(
    owner: Owner, function: Callable, /, *static: Hashable
) -> Callable[..., Any]:
    """``function(owner, *static, ...)`` under jit, compiled once for this owner.

    With static arguments, `jax.jit` itself would keep every network that was ever
    analysed, its constants among them, until the process ends. Here the programs go
    when the owner goes. Small ones, which run for less time than they compile, are
    compiled fast and not well; in a function that is being traced none is compiled.

    Args:
        owner: a network, block or scan; equal ones are the same object, see
            `gradstab.network.find_layers`.
        function: takes the owner, the static arguments, then arrays. It should be one
            object for all calls: a function of a module, not a lambda.
        *static: compared by equality.
    """
    return owner.programs.get(
        (function, static), lambda: _compiled(owner, function, static)
    )


def _compiled(
    owner: Owner, function: Callable, static: tuple[Hashable, ...]
) -> Callable[..., Any]:
    plain = functools.partial(function, owner, *static)
    options = quick_options() if _is_small(work_for(owner)) else None
    program = jax.jit(plain, compiler_options=options)

    @functools.wraps(function)
    def run(*arrays: Any) -> Any:
        return (program if _compat.computes_now() else plain)(*arrays)

    return run


def work_for(owner: Owner, /) -> Work:
    """The work of one evaluation of an owner's equations, counted once."""
    return owner.programs.get("work", lambda: work_of(owner.eqns))


def _is_small(work: Work) -> bool:
    return (
        work.num_bytes < _FEW_BYTES
        and work.flops < _FEW_FLOPS
        and work.functions < _FEW_FUNCTIONS
    )
