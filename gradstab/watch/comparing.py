"""`compare_gradients`: the same batches by two ways, and nothing updated."""

import contextlib
import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from gradstab import _checked, _tree
from gradstab.errors import UserTypeError, UserValueError
from gradstab.watch.comparison import GradientComparison, judged
from gradstab.watch.differentiating import value_and_grad
from gradstab.watch.meter import Meter
from gradstab.watch.models import is_number
from gradstab.watch.pure_loss import pure_loss

WHOLE = "(all)"
_LEAST = 2


def compare_gradients(
    loss_fn: Callable,
    params: Any,
    batches: Iterable,
    /,
    *,
    other_loss: Callable | None = None,
    other_params: Any = None,
    context: Callable | None = None,
    other_context: Callable | None = None,
    num_batches: int | None = None,
    has_aux: bool = False,
    names: tuple[str, str] = ("A", "B"),
) -> GradientComparison:
    r"""The gradients of the same batches by two ways, layer by layer; no update.

    A is ``loss_fn`` at ``params``. B has another loss (a kernel, a precision, a
    backward rule), other parameters (a checkpoint, another layout on devices), another
    context, or several of these. Each batch goes through both, and the differences
    :math:`d_i = g^B_i - g^A_i` are what is looked at: what both have of a batch in
    common drops out, and what varies of them from batch to batch is their noise. A
    layer differs if its mean difference is beyond that noise, or its scale is; it is
    the same if no difference is seen and one as large as the noise between batches, the
    standard error of the mean gradient of A, would be. Of equal gradients at most one
    comparison in a hundred says of any layer that it differs, where noise is normal.

    Args:
        loss_fn: ``loss_fn(params, *batch)``, a real scalar.
        params: a pytree of arrays, an `flax.nnx.Module`, or an Equinox module.
        batches: for each batch the other arguments: a tuple or a list of them, or the
            only one. Batches count alike, however large they are. Random keys belong to
            the batch, so that both draw the same.
        other_loss: of B; of the same arguments. ``loss_fn`` by default.
        other_params: of B; of the same names and shapes, of any dtype. ``params`` by
            default.
        context: what A is traced and run in: a function that returns a context manager,
            such as ``lambda: jax.default_matmul_precision("highest")``.
        other_context: of B; none by default.
        num_batches: how many to take, of a loader without an end; all by default.
        has_aux: whether losses return a pair of the loss and anything else.
        names: what A and B are called.

    Returns:
        A `GradientComparison`. The cost is that of two gradients a batch, and memory
        for four copies of the parameters beside them. What else a module changes in
        itself (batch statistics, counts of random keys) is dropped: every batch begins
        with the module as it is.

    Raises:
        ValueError: there are fewer than two batches; the parameters of both have other
            names or shapes.
        TypeError: a loss is no function or no real scalar, batches are none.

    Examples:
        >>> def loss(params, x):
        ...     return jnp.mean(jnp.tanh(x @ params["first"]) @ params["head"])
        >>> def scaled(params, x):
        ...     w = params["head"]
        ...     w = w + 0.01 * (w - jax.lax.stop_gradient(w))
        ...     return loss({**params, "head": w}, x)
        >>> params = {"first": jnp.eye(3), "head": jnp.ones(3)}
        >>> batches = np.random.default_rng(0).normal(size=(8, 4, 3)).astype(np.float32)
        >>> found = compare_gradients(loss, params, batches, other_loss=scaled)
        >>> [(layer.layer, round(layer.factor, 4)) for layer in found.differing]
        [('head', 1.01)]
    """
    a = _side(loss_fn, params, context, has_aux)
    b = _side(
        loss_fn if other_loss is None else other_loss,
        params if other_params is None else other_params,
        other_context,
        has_aux,
    )
    _expect_same_parameters(a, b, names)
    return _compared(a, b, _taken(batches, num_batches), names)


class _Side(NamedTuple):
    """One of the two ways.

    Attributes:
        tree: the parameters as a pytree of arrays, by whose paths they are named.
        loss: ``loss(tree, *batch)``.
        gradient: ``gradient(tree, *batch) -> (value, tree of gradients)``, compiled.
        context: what it is traced and run in.
    """

    tree: Any
    loss: Callable
    gradient: Callable
    context: Callable


def _side(loss_fn, params, context, has_aux) -> _Side:
    if not callable(context) and context is not None:
        raise UserTypeError(f"a context must be a function, got {context!r}")
    tree, loss = pure_loss(loss_fn, params, has_aux)
    gradient = jax.jit(jax.value_and_grad(loss))
    return _Side(tree, loss, gradient, context or contextlib.nullcontext)


def _expect_same_parameters(a: _Side, b: _Side, names):
    shapes = []
    for side in (a, b):
        leaves = map(jnp.shape, jax.tree.leaves(side.tree))
        shapes.append(dict(zip(_tree.paths(side.tree), leaves, strict=True)))
    only = [[n for n in s if n not in o] for s, o in (shapes, shapes[::-1])]
    said = [
        f"only {name} has {_listed(missing)}"
        for name, missing in zip(names, only, strict=True)
        if missing
    ]
    both = [n for n in shapes[0] if n in shapes[1]]
    other = [n for n in both if shapes[0][n] != shapes[1][n]]
    said += [
        f"{n} is {shapes[0][n]} in {names[0]} and {shapes[1][n]} in {names[1]}"
        for n in other[:3]
    ]
    said += [f"{len(other) - 3} more have other shapes"] if len(other) > 3 else []
    if said:
        raise UserValueError(
            f"{names[0]} and {names[1]} do not have the same parameters: "
            f"{'; '.join(said)}"
        )


def _listed(names):
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _taken(batches, num_batches):
    """The arguments of each batch."""
    if num_batches is not None:
        _checked.whole_number(num_batches, "num_batches", least=_LEAST)
    if isinstance(batches, str | bytes | dict) or not hasattr(batches, "__iter__"):
        raise UserTypeError(
            "batches must be batches one after the other, each a tuple of the loss's "
            f"other arguments, like [(x, y), (x, y)]; got a {type(batches).__name__}"
        )
    for batch in itertools.islice(batches, num_batches):
        batch = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
        if strange := [x for x in jax.tree.leaves(batch) if not is_number(x)]:
            raise UserTypeError(
                f"batches hold arrays, got a {type(strange[0]).__name__}: "
                f"{strange[0]!r}"
            )
        yield batch


def _compared(a: _Side, b: _Side, batches, names) -> GradientComparison:
    meter, values, found = None, [], []
    for batch in batches:
        value, first = _gradient(a, batch)
        other, second = _gradient(b, batch)
        if meter is None:
            meter = Meter(*_rows(a, batch), first, second)
        values.append((float(value), float(other)))
        found.append(meter.add(first, second))
    if meter is None or len(found) < _LEAST:
        raise UserValueError(
            f"the noise between batches needs {_LEAST} batches and more, got "
            f"{len(found)}"
        )
    *layers, whole = judged([*meter.names, WHOLE], meter.summed(found))
    return GradientComparison(tuple(layers), whole, np.array(values), tuple(names))


def _gradient(side: _Side, batch):
    """The loss of a batch, and the leaves of its gradient."""
    with side.context():
        given = _beside(_tree.fresh_keys(batch), side.tree)
        value, grads = side.gradient(side.tree, *given)
    return value, jax.tree.leaves(grads)


def _rows(side: _Side, batch):
    """The names of the layers, and for each leaf of the parameters which it is of."""
    with side.context():
        given = side.tree, *_tree.fresh_keys(batch)
        (_, stats), _ = jax.eval_shape(value_and_grad(side.loss), *given)
    return stats.names, stats.owners


def _beside(batch, tree):
    """The arrays of a batch on the devices of the parameters, if these are several."""
    layouts = [x.sharding for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]
    layouts = [x for x in layouts if isinstance(x, NamedSharding)]
    if not layouts or len(layouts[0].device_set) == 1:
        return batch
    devices = layouts[0].device_set
    whole = NamedSharding(layouts[0].mesh, PartitionSpec())

    def placed(x):
        elsewhere = isinstance(x, jax.Array) and x.sharding.device_set != devices
        return jax.device_put(x, whole) if elsewhere else x

    return jax.tree.map(placed, batch)
