"""Layer-sequential unit variance (LSUV): weights scaled on a batch of data."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from gradstab.calibration.measurement import output_deviations, scale_weights
from gradstab.calibration.products import find_products
from gradstab.errors import UserValueError
from gradstab.network.adapters import as_target
from gradstab.program.trace import trace_program
from gradstab.records import record, static


@record
class Calibration:
    """What LSUV found and did; products of data and weights in depth order.

    Attributes:
        params: the new parameters.
        before: (products,) standard deviation of each product's output, over
            examples, positions and channels, for the old parameters.
        after: (products,) the same for the new ones.
        names: dotted path of each product's weights, with the layer in a stack.
        notes: pairs (path, reason) of weights that were left alone, or are not within
            the tolerance.
    """

    params: Any
    before: np.ndarray
    after: np.ndarray
    names: tuple[str, ...] = static()
    notes: tuple[tuple[str, str], ...] = static()


def lsuv(
    model: Any,
    /,
    *args: Any,
    tolerance: float = 0.01,
    max_iterations: int = 10,
    output: Any = None,
    apply_kwargs: Mapping[str, Any] | None = None,
    batched: bool = True,
) -> Calibration:
    r"""Scale every layer's weights so that its output has unit variance on a batch.

    Layer by layer from the input, :math:`W_l \leftarrow W_l / \mathrm{std}(W_l x_l)`,
    where :math:`x_l` is what reaches the layer once those before it are scaled. The
    output is that of the convolution or dense product itself, before bias,
    normalisation and activation: a sigmoid's cannot have unit variance, a normalised
    one's does not depend on the weights. The paper starts from orthonormal weights:
    use `initializers.orthogonal` for that.

    All layers are scaled in one evaluation of the model, which divides each output by
    its deviation on the way; a second one checks the new weights. Weights that an
    iteration does not bring closer to unit variance (normalised weights, whose scale
    has no effect) are put back. Left alone too, and noted: weights with several uses,
    weights computed from several parameters, those of a recurrence, and outputs that do
    not vary, such as those of a layer that starts at zero.

    Hundreds of tanh layers of unit variance are chaotic: rounding alone gives the last
    ones other activations, so that their deviations differ from one by a sampling error
    (up to 6 % for 64 units and examples). No scaling holds them closer; they are noted.

    Args:
        model: as for `analyze`: an NNX module, a pair (linen module, variables), a
            callable pytree, or a function ``apply(params, *inputs)``.
        *args: for a function its parameters; then a batch of inputs.
        tolerance: largest distance of a standard deviation from one.
        max_iterations: evaluations at most, the last check not counted. One is enough
            for weights that enter the product as they are.
        output: if the model returns several floating arrays, selects one.
        apply_kwargs: keyword arguments of the model.
        batched: False if the model takes one example.

    Returns:
        The new parameters, shaped as the old, which stay as they are. For an NNX
        module ``nnx.update(model, calibration.params)`` installs them. Cost: a
        compilation and ``iterations + 2`` evaluations. Not to be called under jit.

    Raises:
        ValueError: if the model multiplies its data with no parameter.

    References:
        Mishkin and Matas (2016), All you need is a good init, algorithm 1. There the
        tolerance is on the variance.

    >>> import jax.numpy as jnp
    >>> def apply(params, x):
    ...     for w in params:
    ...         x = jnp.tanh(x @ w)
    ...     return x
    >>> params = [0.1 * jnp.eye(4)] * 30
    >>> x = jax.random.normal(jax.random.key(0), (50, 4))
    >>> calibration = lsuv(apply, params, x)
    >>> bool(calibration.before[-1] < 1e-20), round(float(calibration.after[-1]), 2)
    (True, 1.0)
    """
    target = as_target(model, args, apply_kwargs=apply_kwargs, batched=batched)
    program = trace_program(
        target.apply, target.params, target.state, target.inputs, output=output
    )
    plan = find_products(program)
    if not plan.names and not plan.notes:
        raise UserValueError("the model multiplies its data with no parameter")
    leaves, tree = jax.tree.flatten(target.params)
    rest = jax.tree.leaves((target.state, target.inputs))
    deviations = jax.jit(
        lambda params, active: output_deviations(program, plan, params + rest, active)
    )

    def measure(factors: np.ndarray, active: np.ndarray) -> np.ndarray:
        return np.asarray(deviations(scale_weights(leaves, plan, factors), active))

    rows = len(plan.names)
    factors, notes = _solve(measure, rows, tolerance, max_iterations)
    before = measure(np.ones(rows), np.zeros(rows, bool))
    after = measure(factors, np.zeros(rows, bool))
    for row in np.flatnonzero(_is_far(after, tolerance)):
        notes.setdefault(row, f"its output has standard deviation {after[row]:.3g}")
    noted = ((plan.names[row], notes[row]) for row in plan.order if row in notes)
    return Calibration(
        params=tree.unflatten(scale_weights(leaves, plan, factors)),
        before=before[plan.order],
        after=after[plan.order],
        names=tuple(plan.names[row] for row in plan.order),
        notes=(*plan.notes, *noted),
    )


def _solve(
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray],
    rows: int,
    tolerance: float,
    max_iterations: int,
) -> tuple[np.ndarray, dict]:
    """A factor for the weights of each row, and notes of those that have none."""
    factors, active = np.ones(rows), np.ones(rows, bool)
    first = last = np.full(rows, np.inf)
    notes = {}
    for _ in range(max_iterations):
        found = measure(factors, active)
        moving = active & _is_far(found, tolerance)
        if not moving.any():
            break
        usable = np.isfinite(found) & (found > 0)
        distance = np.abs(np.log(np.where(usable, found, 1.0)))
        # Both: rounding alone moves the deep layers of a chaotic network a little.
        in_vain = (distance > 0.75 * last) & (distance > 0.75 * first)
        stuck = moving & (~usable | in_vain)
        notes |= {row: _why_stuck(found[row]) for row in np.flatnonzero(stuck)}
        factors[stuck], active[stuck] = 1.0, False
        moving &= ~stuck
        factors[moving] /= found[moving]
        # Weights that are put back change what reaches the layers after them.
        last = np.full(rows, np.inf) if stuck.any() else distance
        first = np.where(np.isinf(first), distance, first)
    return factors, notes


def _is_far(deviations: np.ndarray, tolerance: float) -> np.ndarray:
    return ~(np.abs(deviations - 1) <= tolerance)  # true for NaN


def _why_stuck(deviation: float) -> str:
    if deviation == 0:
        return "its output does not vary"
    if not np.isfinite(deviation):
        return "its output is not finite"
    return "scaling it does not bring its output to unit variance"
