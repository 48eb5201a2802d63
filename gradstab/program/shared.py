"""Functions under jit that share what is compiled with all functions equal to them."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax

from gradstab import _compat
from gradstab.program.cache import Cache
from gradstab.program.canonical import key_of

# The last programs, by canonical form and options.
PROGRAMS = Cache(most=256)


class SharedProgram:
    """`jax.jit`, which compiles nothing if an equal program was compiled before.

    `jax.jit` knows a function by its identity: a closure that is made again, around
    other arrays, is compiled again. Here it is traced, and compared as a program (see
    `gradstab.program.canonical.key_of`); arrays that it holds are handed to the program
    like its arguments.

    Args:
        function: of pytrees of arrays and numbers. It is traced once for every shape of
            them, and must not depend on anything that changes between calls.
        options: for the compiler.

    Cost: a trace more than that of `jax.jit`.

    >>> import jax.numpy as jnp
    >>> def scaled(factor):
    ...     return SharedProgram(lambda x: factor * x)
    >>> before = scaled(jnp.arange(3.0))(1.0), len(PROGRAMS)
    >>> after = scaled(jnp.arange(3.0) + 1)(1.0), len(PROGRAMS)
    >>> before[0], after[0], before[1] == after[1]
    (Array([0., 1., 2.], dtype=float32), Array([1., 2., 3.], dtype=float32), True)
    """

    def __init__(
        self, function: Callable, options: Mapping[str, Any] | None = None, /
    ) -> None:
        self._function, self._options = function, options
        self._traced: dict = {}
        self._compiled: dict = {}

    def __call__(self, *args: Any) -> Any:
        """What the function returns."""
        if not _compat.computes_now():
            return self._function(*args)
        form = _form(args)
        if form not in self._compiled:
            self._compiled[form] = _compiled(self.program(*args), self._options)
        program, constants = self._compiled[form]
        _, out_tree = self._traced[form]
        return out_tree.unflatten(program(*constants, *jax.tree.leaves(args)))

    def program(self, *args: Any) -> _compat.ClosedJaxpr:
        """The traced program, with the leaves of the arguments for inputs."""
        form = _form(args)
        if form not in self._traced:
            traced, shapes = jax.make_jaxpr(self._function, return_shape=True)(*args)
            self._traced[form] = traced, jax.tree.structure(shapes)
        return self._traced[form][0]


def _form(args: tuple) -> Hashable:
    """What a trace depends on."""
    leaves, tree = jax.tree.flatten(args)
    types = tuple(map(jax.typeof, leaves))
    config = jax.config
    return (
        tree,
        types,
        config.read("jax_enable_x64"),
        config.values["jax_default_matmul_precision"],
    )


def shared_program(
    closed: _compat.ClosedJaxpr, options: Mapping[str, Any] | None = None, /
) -> Callable[..., list]:
    """A program as a function of its inputs, compiled once for all that are equal.

    Args:
        closed: the program.
        options: for the compiler.
    """
    program, constants = _compiled(closed, options)
    return lambda *values: program(*constants, *values)


def _compiled(
    closed: _compat.ClosedJaxpr, options
) -> tuple[Callable[..., list], tuple]:
    """The program of its constants and its inputs, compiled once; the constants."""
    jaxpr = closed.jaxpr
    inputs = [*jaxpr.constvars, *jaxpr.invars]

    def make() -> Callable[..., list]:
        run = _compat.program_function(inputs, jaxpr.outvars, jaxpr.eqns)
        return jax.jit(run, compiler_options=options)

    key = key_of(closed, constants=False, names=False)
    if key is None:
        return make(), tuple(closed.consts)
    named = tuple(sorted((options or {}).items()))
    return PROGRAMS.get((key, named), make), tuple(closed.consts)
