"""A record of the norms that pass, parameter by parameter, in the state of a chain."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstab._tree import is_floating, nodes_of
from gradstab.clipping._arguments import find_stacked, named_leaves
from gradstab.clipping._scaled import scaled_norm, wide_dtype
from gradstab.errors import UserValueError


class NormsState(NamedTuple):
    """What passed at the last step; read by `update_norms` and `update_ratios`."""

    update_norms: Any  # as the parameters: a scalar for each, of a stack (layers,)
    param_norms: Any  # likewise; NaN where the step was given no parameters


def record_norms(
    *, stacked: str | Callable[[str], bool] | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Keep the norm of every parameter's update, and of the parameter; change nothing.

    At the end of a chain these are the updates, and :math:`\|u\| / \|w\|` is the
    update-to-weight ratio; in front of it they are the gradients. There is no backward
    pass in it: it watches any loop that has an optimiser, as that of reinforcement
    learning or of a gradient that is made by hand.

    Args:
        stacked: parameters that hold many layers along their leading axis, as those of
            a scan over layers do: a regular expression searched for in the dotted path,
            or a predicate of it. Each slice has a norm of its own.

    Returns:
        A transformation whose state is a `NormsState`.

    Raises:
        ValueError: on init, if ``stacked`` matches no parameter, or a scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> tx = optax.chain(optax.sgd(0.1), record_norms(stacked="blocks"))
        >>> blocks = jnp.array([[3.0, 4.0], [6.0, 8.0]])
        >>> params = {"blocks": blocks, "head": jnp.array([5.0])}
        >>> _, state = tx.update(params, tx.init(params), params)
        >>> {name: norm.tolist() for name, norm in update_norms(state).items()}
        {'blocks': [0.5, 1.0], 'head': 0.5}
    """

    def norms(tree: Any):
        leaves, structure = jax.tree.flatten(tree)
        names = [name for _, name in named_leaves(tree)]
        found = find_stacked(stacked, names, leaves)
        return structure.unflatten(map(_norm, leaves, found))

    def unknown(norms: Any):
        return jax.tree.map(lambda norm: jnp.full_like(norm, jnp.nan), norms)

    def init(params: Any):
        # Arrays of their own, as a state that is donated may hold none of them twice.
        shapes = jax.eval_shape(norms, params)
        return NormsState(
            *(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes),) * 2
        )

    def update(updates: Any, state: Any, params: Any = None, **extra_args):
        del state, extra_args
        passed = norms(updates)
        held = unknown(passed) if params is None else norms(params)
        return updates, NormsState(passed, held)

    return optax.GradientTransformationExtraArgs(init, update)


def update_norms(state: Any, /) -> dict[str, jax.Array]:
    """The norms of the last updates by the dotted names of their parameters.

    Args:
        state: of any optimiser that contains `record_norms` once, however deep.

    Raises:
        ValueError: if the state contains no `record_norms`, or more than one.
    """
    return _by_name(_found(state).update_norms)


def update_ratios(state: Any, /) -> dict[str, jax.Array]:
    r"""The update-to-weight ratios :math:`\|u\| / \|w\|` of the last step, by name.

    Some :math:`10^{-3}` for Adam. Infinite or NaN for a parameter that is zero.

    Args:
        state: of any optimiser that contains `record_norms` once, however deep.

    Raises:
        ValueError: if the state contains no `record_norms`, or more than one.
    """
    weights = _by_name(_found(state).param_norms)
    return {name: norm / weights[name] for name, norm in update_norms(state).items()}


def _norm(leaf: Any, is_stacked: bool):
    leaf = jnp.asarray(leaf)
    axes = tuple(range(int(is_stacked), leaf.ndim))
    if not is_floating(leaf):
        return jnp.full(leaf.shape[: int(is_stacked)], jnp.nan, wide_dtype(leaf))
    return scaled_norm([leaf], [axes]).value


def _by_name(tree: Any):
    names = [name for _, name in named_leaves(tree)]
    return dict(zip(names, jax.tree.leaves(tree), strict=True))


def _found(state: Any) -> NormsState:
    records = nodes_of(state, NormsState)
    if len(records) != 1:
        raise UserValueError(
            f"expected one record_norms() in the state, found {len(records)}. Put it "
            "at the end of the chain, optax.chain(optax.adam(1e-3), record_norms()); "
            "of several pass the part of the state that holds one."
        )
    return records[0]
