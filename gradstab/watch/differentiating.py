"""`value_and_grad`, in place of `jax.value_and_grad`."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from gradstab import _checked, _compat
from gradstab.errors import UserTypeError, UserValueError, call_of_user
from gradstab.watch import taps
from gradstab.watch.collecting import collect
from gradstab.watch.gathering import EXAMPLE, KINDS
from gradstab.watch.measures import Level
from gradstab.watch.models import (
    Differentiated,
    OfModules,
    holds_modules,
    is_array,
    is_number,
)
from gradstab.watch.places import find_places


def value_and_grad(
    loss_fn: Callable,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    level: str = "light",
    include: str | None = None,
    exclude: str | None = None,
    per: Sequence[str] = (),
) -> Callable:
    r"""`jax.value_and_grad`, and the statistics of every layer on the way.

    The loss is traced, the layers of the model in it are found as `analyze` finds them,
    and at the output of each a tap lets statistics of the data and of their gradient
    ride out of the backward pass. Under `jax.jit` value and gradients are bitwise those
    of `jax.value_and_grad`; rematerialisation and scans stay as they are. Nothing
    leaves the device, and there are no callbacks. Outside of jit the loss is traced in
    every call and run an operation at a time; sums may differ in their last digit.

    A layer of a scan over layers has its own row; those inside of a scan over parts of
    a batch, of a branch and of a `jax.shard_map` have theirs. Micro-batches, time steps
    and devices are summed: the statistics are those of one device and one batch. Data
    that all devices have count once; copies that they send each other one by one
    (``ppermute``) are taken for different data. A branch that is not taken has no
    entries. Inside of a `jax.shard_map` of which this function is a part, each device
    has statistics of its own data. Under `jax.vmap` of the
    result each example has statistics of its own; a `jax.vmap` inside of the loss is
    part of the loss, whose statistics are over all of it.

    Modules of Flax NNX among the arguments are taken as `flax.nnx.value_and_grad` takes
    them: by their parameters, and what else the loss changes in them is changed. Of an
    argument with an Equinox module, or with functions among its leaves, the floating
    arrays count, as for `equinox.filter_value_and_grad`; the gradient of the rest is
    None.

    Args:
        loss_fn: as `jax.value_and_grad` takes it. It is traced: its Python code must
            not look at the values of arrays.
        argnums: which arguments to differentiate with respect to; of a module of NNX
            also an `flax.nnx.DiffState`, for other variables than its parameters.
        has_aux: whether it returns a pair of the loss and anything else.
        level: ``"light"`` for what is cheap enough for every step; ``"full"`` for
            means, zeros and the distribution of exponents too.
        include: a regular expression: only layers in whose name it is found.
        exclude: a regular expression: no layers in whose name it is found.
        per: what of a layer is to be apart as well, in ``stats.details``:
            ``"iteration"`` for those of loops (time steps, micro-batches, chunks),
            ``"device"`` for those of a `jax.shard_map`, ``"example"`` for what lies on
            the leading axis of the data that leave a layer. With them
            ``stats.nonfinite()`` says device and example too.

    Returns:
        A function of the same arguments. It gives ``((value, stats), grads)``, with
        ``has_aux`` ``((value, (aux, stats)), grads)``; ``stats`` is a `Statistics`. To
        watch some steps only, compile both this and the bare step, and choose.

    Raises:
        TypeError: ``loss_fn`` is no function; the loss is no real number, or is
            differentiated with respect to an array of integers, or to a container of
            modules of NNX.
        ValueError: the level is none, or no layer is left; a module of NNX is given
            twice, or has its attributes changed.

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
    per = _expect_kinds(per)
    options = Level(level), include, exclude
    return _watching(loss_fn, argnums, has_aux, *options, taps.by_default, per)


class _Options(NamedTuple):
    """How to watch: see `value_and_grad`, and `taps` for the way back."""

    level: Level
    include: str | None
    exclude: str | None
    backward: Callable
    per: tuple[str, ...] = ()


def _watching(loss_fn, argnums, has_aux, *options):
    """`value_and_grad` by one of the two ways out of the backward pass."""
    filters, chosen_options = _positions(argnums), _Options(*options)
    single = not isinstance(argnums, Sequence)

    @functools.wraps(loss_fn)
    def watched(*args, **kwargs):
        _expect_arguments(filters, args)
        if holds_modules((args, kwargs)) or _of_parts(filters):
            loss = OfModules(loss_fn, filters, has_aux, args, kwargs)
            call = _Call(loss, tuple(range(len(filters))), True, loss.args, {})
            (value, ((aux, variables), stats)), grads = _run(
                call, chosen_options, single
            )
            loss.update(variables)
        else:
            call = _Call(loss_fn, tuple(filters), has_aux, args, kwargs)
            (value, (aux, stats)), grads = _run(call, chosen_options, single)
        grads = grads[0] if single else grads
        return (value, (aux, stats) if has_aux else stats), grads

    return watched


class _Call(NamedTuple):
    """A loss with its arguments, and the positions that it is differentiated by."""

    function: Callable
    chosen: tuple[int, ...]
    has_aux: bool
    args: tuple
    kwargs: dict


def _run(call: _Call, options: _Options, single: bool):
    """``(value, (aux, stats)), grads`` of a loss, with all gradients in a tuple."""
    given = Differentiated(tuple(call.args[i] for i in call.chosen))
    params = given.params
    loss = _Loss(call, given.whole)
    closed, rest = _hoisted(loss, params)
    named = given.alone(params)
    named = named[0] if single else named
    chosen = {"include": options.include, "exclude": options.exclude}
    where = find_places(closed, named, rest, **chosen, examples=EXAMPLE in options.per)
    found = options.backward(closed, params, rest, where.around, options.level)
    value, *others = found.results
    how = where, options.level, options.per
    stats = collect(*how, value, params, found.grads, found.measures)
    return (value, (loss.aux(others), stats)), given.alone(found.grads)


class _Loss:
    """A loss as a function of the leaves of its parameters and of its other arrays."""

    def __init__(self, call: _Call, whole):
        others = tuple(a for i, a in enumerate(call.args) if i not in call.chosen)
        leaves, self._rest_tree = jax.tree.flatten((others, call.kwargs))
        self._fixed = [None if is_array(x) else x for x in leaves]
        self.rest = [x for x in leaves if is_array(x)]
        self._call = call
        self._whole = whole

    def __call__(self, params, rest):
        """The loss and the arrays beside it."""
        rest = iter(rest)
        leaves = [next(rest) if x is None else x for x in self._fixed]
        others, kwargs = self._rest_tree.unflatten(leaves)
        given, others = iter(self._whole(params)), iter(others)
        args = [
            next(given if i in self._call.chosen else others)
            for i in range(len(self._call.args))
        ]
        result = call_of_user(lambda: self._call.function(*args, **kwargs))
        value, aux = pair_of(result) if self._call.has_aux else (result, ())
        expect_scalar(value)
        leaves, self._aux_tree = jax.tree.flatten(aux)
        self._still = [None if is_number(x) else x for x in leaves]
        return [value, *(x for x in leaves if is_number(x))]

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


def _positions(argnums) -> dict[int, Any]:
    """The positions that are differentiated by; of NNX modules, which variables."""
    chosen = argnums if isinstance(argnums, Sequence) else (argnums,)
    filters = {}
    for one in chosen:
        is_part = isinstance(one, nnx.DiffState)
        number, wanted = (one.argnum, one.filter) if is_part else (one, nnx.Param)
        try:
            number = operator.index(number)
        except TypeError:
            number = -1
        if number < 0 or number in filters:
            filters = {}
            break
        filters[number] = wanted
    if not filters:
        raise UserValueError(
            f"argnums must be one or several positions of arguments, got {argnums!r}"
        )
    return filters


def _expect_kinds(per):
    kinds = (per,) if isinstance(per, str) else tuple(per)
    for kind in kinds:
        _checked.one_of(kind, "per", KINDS)
    return kinds


def _of_parts(filters):
    return any(wanted is not nnx.Param for wanted in filters.values())


def _expect_arguments(chosen, args):
    if max(chosen) >= len(args):
        raise UserTypeError(
            f"differentiating with respect to argument {max(chosen)} needs that many "
            f"positional arguments; got {len(args)}"
        )


def expect_scalar(value, /) -> None:
    """Refuse a loss that is no real scalar."""
    if not is_number(value) or jnp.shape(value) != ():
        shape = jnp.shape(value) if is_number(value) else type(value).__name__
        raise UserTypeError(f"the loss must be a scalar, got {shape}")
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise UserTypeError(f"the loss must be real, got {jnp.result_type(value)}")


def pair_of(result, /):
    """The two that a loss with anything else beside it returns."""
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise UserTypeError(
            "with has_aux=True the loss returns a pair (loss, anything else), got "
            f"{type(result).__name__}"
        )
    return result
