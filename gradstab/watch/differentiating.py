"""`value_and_grad`, in place of `jax.value_and_grad`."""

import functools
import operator
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from gradstab import _checked, _compat, _tree
from gradstab.errors import UserTypeError, UserValueError, call_of_user
from gradstab.watch import taps
from gradstab.watch.collecting import collect
from gradstab.watch.measures import Level
from gradstab.watch.places import find_places


def value_and_grad(
    loss_fn: Callable,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    level: str = "light",
    include: str | None = None,
    exclude: str | None = None,
) -> Callable:
    r"""`jax.value_and_grad`, and the statistics of every layer on the way.

    The loss is traced, the layers of the model in it are found as `analyze` finds them,
    and at the output of each a tap lets statistics of the data and of their gradient
    ride out of the backward pass. Under `jax.jit` value and gradients are bitwise those
    of `jax.value_and_grad`; rematerialisation and scans stay as they are. Nothing
    leaves the device, and there are no callbacks. Outside of jit the loss is traced in
    every call and run an operation at a time; sums may differ in their last digit.

    A layer of a scan over layers has its own row. Micro-batches of a scan inside of the
    loss, and the time steps of a recurrent one, are summed. Under `jax.vmap` of the
    result each example has statistics of its own; a `jax.vmap` inside of the loss is
    part of the loss, whose statistics are over all of it.

    Args:
        loss_fn: as `jax.value_and_grad` takes it. It is traced: its Python code must
            not look at the values of arrays.
        argnums: which arguments to differentiate with respect to.
        has_aux: whether it returns a pair of the loss and anything else.
        level: ``"light"`` for what is cheap enough for every step; ``"full"`` for
            means, zeros and the distribution of exponents too.
        include: a regular expression: only layers in whose name it is found.
        exclude: a regular expression: no layers in whose name it is found.

    Returns:
        A function of the same arguments. It gives ``((value, stats), grads)``, with
        ``has_aux`` ``((value, (aux, stats)), grads)``; ``stats`` is a `Statistics`. To
        watch some steps only, compile both this and the bare step, and choose.

    Raises:
        TypeError: ``loss_fn`` is no function; the loss is no real number, or is
            differentiated with respect to an array of integers.
        ValueError: the level is none, or no layer is left.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> def loss(params, x, y):
        ...     for w in params["hidden"]:
        ...         x = jnp.tanh(x @ w)
        ...     return jnp.mean((x @ params["head"] - y) ** 2)
        >>> params = {"hidden": [jnp.eye(3), jnp.eye(3)], "head": jnp.ones((3, 1))}
        >>> step = jax.jit(value_and_grad(loss))
        >>> (value, stats), grads = step(params, jnp.ones((4, 3)), jnp.ones((4, 1)))
        >>> stats.names
        ('hidden.0', 'hidden.1', 'head', '(elsewhere)')
        >>> [round(float(rms), 4) for rms in stats.forward_rms[:3]]
        [0.7616, 0.642, 1.926]
    """
    if not callable(loss_fn):
        raise UserTypeError(f"loss_fn must be a function, got {loss_fn!r}")
    _checked.one_of(level, "level", [known.value for known in Level])
    options = Level(level), include, exclude
    return _watching(loss_fn, argnums, has_aux, *options, taps.by_default)


def _watching(loss_fn, argnums, has_aux, level: Level, include, exclude, backward):
    """`value_and_grad` by one of the two ways out of the backward pass."""
    chosen = _positions(argnums)

    @functools.wraps(loss_fn)
    def watched(*args, **kwargs):
        _expect_arguments(chosen, args)
        given = tuple(args[i] for i in chosen)
        params, tree = jax.tree.flatten(given)
        _expect_floating(given)
        loss = _Loss(loss_fn, chosen, has_aux, args, kwargs, tree)
        closed, rest = _hoisted(loss, params)
        named = given[0] if isinstance(argnums, int) else given
        where = find_places(closed, named, rest, include=include, exclude=exclude)
        found = backward(closed, params, rest, where.loops, level)
        value, *others = found.results
        stats = collect(where, level, value, params, found.grads, found.measures)
        grads = tree.unflatten(found.grads)
        grads = grads[0] if isinstance(argnums, int) else grads
        aux = (loss.aux(others), stats) if has_aux else stats
        return (value, aux), grads

    return watched


class _Loss:
    """A loss as a function of the leaves of its parameters and of its other arrays."""

    def __init__(self, function, chosen, has_aux, args, kwargs, tree):
        others = tuple(a for i, a in enumerate(args) if i not in chosen)
        leaves, self._rest_tree = jax.tree.flatten((others, kwargs))
        self._fixed = [None if _is_array(x) else x for x in leaves]
        self.rest = [x for x in leaves if _is_array(x)]
        self._function, self._chosen = function, chosen
        self._num_args, self._has_aux = len(args), has_aux
        self._tree = tree

    def __call__(self, params, rest):
        """The loss and the arrays beside it."""
        rest = iter(rest)
        leaves = [next(rest) if x is None else x for x in self._fixed]
        others, kwargs = self._rest_tree.unflatten(leaves)
        given, others = iter(self._tree.unflatten(params)), iter(others)
        args = [
            next(given if i in self._chosen else others) for i in range(self._num_args)
        ]
        result = call_of_user(lambda: self._function(*args, **kwargs))
        value, aux = _pair(result) if self._has_aux else (result, ())
        _expect_scalar(value)
        leaves, self._aux_tree = jax.tree.flatten(aux)
        self._still = [None if _is_number(x) else x for x in leaves]
        return [value, *(x for x in leaves if _is_number(x))]

    def aux(self, arrays):
        """What the loss returns beside, with these arrays."""
        arrays = iter(arrays)
        leaves = [next(arrays) if x is None else x for x in self._still]
        return self._aux_tree.unflatten(leaves)


def _hoisted(loss: _Loss, params):
    """The program of a loss, with the arrays that it closes over for inputs."""
    traced = jax.make_jaxpr(loss)(params, loss.rest)
    jaxpr, consts = traced.jaxpr, list(traced.consts)
    if not consts:
        return traced, loss.rest
    variables = [variable for variable, _ in _compat.constants(traced)]
    run = _compat.program_function(
        [*variables, *jaxpr.invars], jaxpr.outvars, jaxpr.eqns
    )

    def moved(params, consts, rest):
        return run(*consts, *params, *rest)

    closed = jax.make_jaxpr(moved)(params, consts, loss.rest)
    return closed, [*consts, *loss.rest]


def _positions(argnums) -> tuple[int, ...]:
    try:
        found = (argnums,) if isinstance(argnums, int) else tuple(argnums)
        found = tuple(map(operator.index, found))
    except TypeError:
        found = ()
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise UserValueError(
            f"argnums must be one or several positions of arguments, got {argnums!r}"
        )
    return found


def _expect_arguments(chosen, args):
    if max(chosen) >= len(args):
        raise UserTypeError(
            f"differentiating with respect to argument {max(chosen)} needs that many "
            f"positional arguments; got {len(args)}"
        )


def _expect_floating(given):
    paths = _tree.paths(given)
    for path, leaf in zip(paths, jax.tree.leaves(given), strict=True):
        known = _is_number(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        if not known:
            kind = jnp.result_type(leaf) if _is_number(leaf) else type(leaf).__name__
            name = path.partition(".")[2] or "the argument"
            raise UserTypeError(
                f"a loss is differentiated with respect to floating arrays; "
                f"{name} is of {kind}. Hand what is not trained in as another argument"
            )


def _expect_scalar(value):
    if not _is_number(value) or jnp.shape(value) != ():
        shape = jnp.shape(value) if _is_number(value) else type(value).__name__
        raise UserTypeError(f"the loss must be a scalar, got {shape}")
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise UserTypeError(f"the loss must be real, got {jnp.result_type(value)}")


def _pair(result):
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise UserTypeError(
            "with has_aux=True the loss returns a pair (loss, anything else), got "
            f"{type(result).__name__}"
        )
    return result


def _is_array(leaf):
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape")


def _is_number(leaf):
    return _is_array(leaf) or isinstance(leaf, bool | int | float | complex)
