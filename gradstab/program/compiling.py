"""Compiling small programs fast: they run a few times, and compiling is their cost."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from gradstab import _compat

# Each alternative holds names that some release of XLA lacks; the first that compiles
# is taken. Without the emitters of fused loops a small program compiles in an eighth of
# the time, with the other two in half of it; it runs about half as fast.
# As one part it compiles with a sixth less work than as several at once.
_QUICK = (
    {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
        "xla_cpu_use_fusion_emitters": False,
        "xla_cpu_parallel_codegen_split_count": 1,
    },
    {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
        "xla_cpu_use_fusion_emitters": False,
    },
    {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)

# A large one that is run a few times takes no harm by this.
_CHEAP = {"xla_backend_optimization_level": 0}


@functools.cache
def quick_options() -> dict | None:
    """Options of `jax.jit` for a program that is compiled to run a few times.

    None where nothing is known to help: on anything but a CPU.
    """
    if jax.default_backend() != "cpu":
        return None
    for options in _QUICK:
        try:
            jax.jit(lambda x: x + 1, compiler_options=options).lower(1.0).compile()
        except jax.errors.JaxRuntimeError:
            continue
        return options
    return None


def run_few_times(*, quick: bool) -> dict | None:
    """Options of `jax.jit` for a program that is run a few times, whatever its size.

    Args:
        quick: whether it is small, and better compiled fast than well.
    """
    return quick_options() if quick else _CHEAP


def quick_jit(function: Callable, /, *, static: tuple[str, ...] = ()) -> Callable:
    """`jax.jit` for what is compiled to run a few times; see `quick_options`.

    In a function that is being traced it is traced with it: options are for a whole
    program.

    Args:
        function: of arrays.
        static: names of arguments that are no arrays.

    >>> import jax.numpy as jnp
    >>> float(quick_jit(lambda x: x + 1)(jnp.ones(())))
    2.0
    """

    @functools.cache
    def program() -> Callable:
        # Which platform there is is known when the first program is wanted.
        options = quick_options()
        return jax.jit(function, static_argnames=static, compiler_options=options)

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not _compat.computes_now():
            return function(*args, **kwargs)
        return program()(*args, **kwargs)

    return run
