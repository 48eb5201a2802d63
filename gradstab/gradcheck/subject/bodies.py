"""Plain automatic differentiation of what custom rules stand for."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradstab import _compat, _tree
from gradstab._attempt import Refusal
from gradstab.gradcheck.subject.modes import REFUSALS, traced_jvp
from gradstab.program.compiling import quick_options
from gradstab.program.walk import called, evaluate, evaluated


def without_rules(f: Callable, /) -> Callable:
    """The function f with every custom rule of differentiation replaced by its body.

    It has the values of f, and the derivatives that JAX finds by itself. Rules are
    replaced wherever f calls them: under `jax.jit`, `jax.vmap`, `jax.checkpoint`,
    `jax.shard_map`, in loops, branches, and in the bodies of other rules.

    A derivative that f takes inside of itself has used the rules already: it stays as
    it is. So do kernels, and rules that come with a `jax.custom_batching.custom_vmap`.

    Args:
        f: a function of pytrees to a pytree of arrays. Arguments that are no arrays
            are passed on as they are.

    Returns:
        The function. It traces f at every call.

    >>> import jax.numpy as jnp
    >>> half = jax.custom_jvp(jnp.sin)
    >>> _ = half.defjvp(lambda x, v: (jnp.sin(*x), jnp.cos(*x) * v[0] / 2))
    >>> [float(jax.grad(f)(0.0)) for f in (half, without_rules(half))]
    [0.5, 1.0]
    """

    # A custom_vjp has no __name__ of its own in every release.
    @functools.wraps(f, updated=())
    def plain(*args, **kwargs):
        closed, arrays, tree = _traced(f, args, kwargs)
        run = _compat.closed_function(_compat.without_rules(closed))
        return jax.tree.unflatten(tree, run(*arrays))

    return plain


def stays_finite(f: Callable, point: tuple, /) -> bool:
    """Whether all that f computes on its way to a result is finite.

    Of loops, branches and solvers it is what they return.

    Args:
        f: a function of pytrees to a pytree of arrays.
        point: its arguments.

    >>> import jax.numpy as jnp
    >>> x = jnp.float32(100)
    >>> [stays_finite(f, (x,)) for f in (jax.nn.sigmoid, lambda x: 1 / jnp.exp(x))]
    [True, False]

    Cost: one run, compiled.
    """
    closed, arrays, _ = _traced(f, point, {})

    def run(*values):
        sound = []

        def rule(eqn: _compat.JaxprEqn, operands: list):
            body = called(eqn)
            if body is not None:
                return evaluated(body, operands, rule)
            results = evaluate(eqn, operands)
            sound.extend(jnp.all(jnp.isfinite(y)) for y in results if _is_moved(y))
            return results

        evaluated(closed, values, rule)
        return jnp.all(jnp.stack([jnp.bool_(True), *sound]))

    return bool(jax.jit(run, compiler_options=quick_options())(*arrays))


def rules_in(f: Callable, /, *args, **kwargs) -> tuple[str, ...]:
    """The names of the custom rules that f calls, each once, in order of appearance.

    Cost: one trace.

    >>> rules_in(lambda x: jax.nn.relu(jax.numpy.sin(x)), 1.0)
    ('relu',)
    """
    closed, *_ = _traced(f, args, kwargs)
    return tuple(dict.fromkeys(_rules(closed)))


def derivative(f: Callable, args: tuple, /, *, mode: str):
    """A derivative of f with respect to its floating leaves, by the rules of f.

    Args:
        f: a function of pytrees to a pytree.
        args: the point.
        mode: ``reverse``: the VJP for the cotangent f(args); ``forward``: the JVP for
            the point itself as the tangent.
    """
    of_floating, floating = _of_floating(f, args)
    if mode == "reverse":
        values, pullback = jax.vjp(of_floating, floating)
        return pullback(values)
    return jax.jvp(of_floating, (floating,), (floating,))


def refusal(f: Callable, args: tuple, /, *, modes: tuple[str, ...]) -> str:
    """Why JAX cannot differentiate f in these modes; empty if it can.

    Such are a `jax.lax.while_loop` in reverse mode, callbacks, and kernels without a
    rule. Cost: one trace for each mode.
    """
    for mode in modes:
        try:
            attempt = functools.partial(derivative, f, mode=mode)
            if mode == "forward":
                traced_jvp(attempt, args)
            else:
                jax.eval_shape(attempt, args)
        except REFUSALS as error:
            return str(Refusal(error))
    return ""


def _of_floating(f: Callable[..., Any], args: Sequence[Any]):
    """A function of the floating leaves to the floating results, and the leaves."""
    leaves, tree = jax.tree.flatten(args)
    places = [i for i, leaf in enumerate(leaves) if _is_moved(leaf)]

    def of_floating(floating):
        full = list(leaves)
        for place, leaf in zip(places, floating, strict=True):
            full[place] = leaf
        return _tree.floating_leaves(f(*jax.tree.unflatten(tree, full)))

    return of_floating, [leaves[place] for place in places]


def _is_moved(leaf: Any):
    return _is_array(leaf) and _tree.is_floating(leaf)


def _is_array(leaf: Any):
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape")


def _traced(f: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]):
    """The program of f, its array arguments, and the structure of its result."""
    leaves, structure = jax.tree.flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if _is_array(leaf)]
    seen = {}

    def flat(*arrays):
        full = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            full[place] = array
        args, kwargs = structure.unflatten(full)
        results, seen["tree"] = jax.tree.flatten(f(*args, **kwargs))
        return results

    arrays = [leaves[place] for place in places]
    return jax.make_jaxpr(flat)(*arrays), arrays, seen["tree"]


def _rules(program):
    eqns = getattr(program, "jaxpr", program).eqns
    for eqn in filter(_compat.holds_rule, eqns):
        if _compat.is_rule(eqn):
            yield _compat.rule_name(eqn)
        for inner in _compat.inner_programs(eqn):
            yield from _rules(inner)
