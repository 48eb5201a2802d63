"""Ways to give a function a derivative rule that is wrong on purpose."""

from collections.abc import Callable

import jax


def with_vjp(f: Callable, wrong: Callable) -> Callable:
    """The function with the gradients that ``wrong(args, w, true gradients)`` makes."""
    rule = jax.custom_vjp(f)
    rule.defvjp(
        lambda *args: (f(*args), args),
        lambda args, w: wrong(args, w, jax.vjp(f, *args)[1](w)),
    )
    return rule


def with_jvp(f: Callable, wrong: Callable) -> Callable:
    """The function with the tangent of ``wrong(args, tangents, true tangent)``."""
    rule = jax.custom_jvp(f)
    rule.defjvp(lambda x, v: (f(*x), wrong(x, v, jax.jvp(f, x, v)[1])))
    return rule


def gradient_of(f: Callable, other: Callable) -> Callable:
    """The function with the gradients of another."""
    rule = jax.custom_vjp(f)
    rule.defvjp(
        lambda *args: (f(*args), args),
        lambda args, w: jax.vjp(other, *args)[1](w),
    )
    return rule


def value_of(f: Callable, other: Callable) -> Callable:
    """The function whose forward rule returns value and gradients of another."""
    rule = jax.custom_vjp(f)
    rule.defvjp(
        lambda *args: (other(*args), args),
        lambda args, w: jax.vjp(other, *args)[1](w),
    )
    return rule
