"""Learning-rate transfer: does the best learning rate of a small model hold?"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradstab import _checked, _tree
from gradstab.errors import UserTypeError, UserValueError, call_of_user
from gradstab.network.adapters import Target
from gradstab.scaling import makers
from gradstab.scaling.optima import LearningRates
from gradstab.scaling.progress import progress_bar


def learning_rate_transfer(
    make: Callable[..., Any],
    inputs: Any,
    /,
    *,
    widths: Sequence[int],
    loss: Callable[..., Any],
    optimizer: Callable[..., optax.GradientTransformation],
    learning_rates: Sequence[float],
    targets: Any = None,
    batch_size: int | None = None,
    steps: int = 20,
    seeds: int = 3,
    batched: bool = True,
    key: jax.Array | None = None,
    progress: bool = True,
) -> LearningRates:
    r"""Train at every width with every learning rate, and see where the optimum goes.

    The loss after so many steps, on all inputs, is taken for every width, seed and
    learning rate; a run that diverges has the loss infinity. The optimum of a seed is
    the vertex of a parabola, of the logarithm of the loss in that of the rate, fitted
    to the best rate and two on either side; it is off by a part of the distance between
    rates, alike at all widths. That of a width is the geometric mean over seeds.
    Whether it moves is the slope of its logarithm against that of the width, with its
    error.

    Args:
        make: ``make(width, key)`` gives a model as for `gradstab.analyze`, or a pair
            ``(apply, params)``; of any framework.
        inputs: one input, or a tuple of them, with examples on the leading axis.
        widths: at least two.
        loss: ``loss(output) -> scalar``, on the whole output; with ``targets``
            ``loss(output, targets)``.
        optimizer: ``optimizer(learning_rate)`` gives an optax transformation, such as
            `optax.adam`; if it needs two arguments it is given the width too. The rate
            is traced: all rates are trained in one program.
        learning_rates: at least three, positive, each above the one before. Geometric
            steps are best; where an optimum is the first or the last of them it lies
            outside, and nothing is said of whether it moves.
        targets: what the loss is given beside the output, such as labels; an array or
            a pytree of arrays with examples on the leading axis.
        batch_size: so many examples are drawn for each step, the same for all widths,
            seeds and rates; all examples if not given. Needs ``targets``.
        steps: of training.
        seeds: initialisations at each width.
        batched: False if the model takes one example.
        key: a PRNG key; `jax.random.key(0)` if not given.
        progress: whether to show how far it is.

    Returns:
        The losses and optima: ``.optima``, ``.errors``, ``.slope``, ``.verdict``,
        ``.factor``; ``.show()``, ``.plot()``, ``.save(path)``. Cost: ``steps``
        gradients for each width, seed and rate, and memory for all rates of one seed at
        a time; one compilation for each width.

    Raises:
        ValueError: for widths, rates, steps or seeds that make no optimum.
        TypeError: if ``optimizer`` gives no optax transformation.

    References:
        Yang et al. (2022), Tensor Programs V, figure 1.

    >>> import jax, jax.numpy as jnp, optax
    >>> import gradstab as gs
    >>> def make(width, key):  # a valley that is the steeper the wider the model is
    ...     return lambda p, x: jnp.sqrt(width) * p * x, jnp.ones(())
    >>> found = gs.scaling.learning_rate_transfer(
    ...     make,
    ...     jnp.ones(4),
    ...     widths=(8, 16, 32),
    ...     loss=lambda y: 0.5 * jnp.mean(y**2),
    ...     optimizer=optax.sgd,
    ...     learning_rates=[2.0**-n for n in range(8, 0, -1)],
    ...     steps=1,
    ...     seeds=1,
    ...     progress=False,
    ... )
    >>> round(found.slope.value, 2)
    -1.0
    >>> str(found.verdict)
    'shrinks'
    """
    sizes = _ascending(
        [_checked.whole_number(w, "a width", least=1) for w in widths], "widths", 2
    )
    rates = _ascending(
        [_checked.number(r, "a learning rate", above=0) for r in learning_rates],
        "learning_rates",
        3,
    )
    steps = _checked.whole_number(steps, "steps", least=1)
    seeds = _checked.whole_number(seeds, "seeds", least=1)
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    rows = _rows(given, targets, batch_size)
    key = jax.random.key(0) if key is None else key
    losses = np.zeros((len(sizes), seeds, len(rates)))
    with progress_bar(progress, len(sizes) * seeds) as advance:
        for number, width in enumerate(sizes):
            run = _Width(width, optimizer, loss, targets, rows, steps)
            for seed in range(seeds):
                advance(f"width {width}, seed {seed + 1}")
                own = jax.random.fold_in(jax.random.fold_in(key, number), seed)
                made = makers.made_by(make, width, own)
                target = makers.target_of(made, given, batched=batched)
                losses[number, seed] = run.losses(target, rates, key)
    losses = np.where(np.isfinite(losses), losses, np.inf)
    return LearningRates(losses, np.array(rates), widths=sizes, num_steps=steps)


class _Width:
    """The runs at one width; one program for all rates and seeds."""

    def __init__(
        self,
        width: int,
        optimizer: Callable[..., Any],
        loss: Callable[..., Any],
        targets: Any,
        rows: tuple[int, int] | None,
        steps: int,
    ) -> None:
        self._width, self._steps = width, steps
        self._optimizer, self._loss = optimizer, loss
        self._targets, self._rows = targets, rows
        self._program: Any = None
        self._trace: Any = None

    def losses(self, target: Target, rates: Sequence[float], key: jax.Array) -> Any:
        """The loss after the last step, for every rate."""
        arrays = (target.params, target.state, target.inputs)
        trace = jax.make_jaxpr(target.apply)(*arrays[:2], *arrays[2])
        if self._trace is None or not _is_same(self._trace, trace):
            self._trace = trace
            over = jax.vmap(self._trained(target.apply), in_axes=(0, *[None] * 5))
            self._program = jax.jit(over)
        rate = jnp.asarray(rates, jnp.float32)
        with jax.default_matmul_precision("highest"):
            return np.asarray(
                self._program(rate, *arrays, self._targets, key), np.float64
            )

    def _trained(self, apply: Callable[..., Any]) -> Callable[..., Any]:
        def objective(params: Any, state: Any, inputs: tuple, targets: Any) -> Any:
            output = apply(params, state, *inputs)
            given = (output,) if targets is None else (output, targets)
            return call_of_user(self._loss, *given)

        def trained(
            rate: Any, params: Any, state: Any, inputs: tuple, y: Any, key: Any
        ):
            optimizer = _made(self._optimizer, rate, self._width)

            def step(carry: tuple, number: Any) -> tuple:
                params, memory = carry
                x, of_x = self._batch(inputs, y, jax.random.fold_in(key, number))
                gradients = jax.grad(objective)(params, state, x, of_x)
                with jax.numpy_dtype_promotion("standard"):  # which optax counts on
                    updates, memory = call_of_user(
                        optimizer.update, gradients, memory, params
                    )
                    return (optax.apply_updates(params, updates), memory), None

            begin = params, call_of_user(optimizer.init, params)
            (params, _), _ = jax.lax.scan(step, begin, jnp.arange(self._steps))
            return objective(params, state, inputs, y)

        return trained

    def _batch(self, inputs: tuple, targets: Any, key: jax.Array) -> tuple:
        if self._rows is None:
            return inputs, targets
        num_examples, size = self._rows
        rows = jax.random.choice(key, num_examples, (size,), replace=False)

        def drawn(leaf: Any) -> Any:
            return leaf if _tree.is_key(leaf) else leaf[rows]

        return jax.tree.map(drawn, (inputs, targets))


def _is_same(one: Any, other: Any) -> bool:
    """Whether two programs do the same, with the same arrays that they hold."""
    if len(one.consts) != len(other.consts) or str(one) != str(other):
        return False
    pairs = zip(one.consts, other.consts, strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def _made(optimizer: Any, rate: Any, width: int) -> optax.GradientTransformation:
    if not callable(optimizer):
        raise UserTypeError(
            "optimizer must be a function of the learning rate that gives an optax "
            f"transformation, such as optax.adam; got a {type(optimizer).__name__}"
        )
    given = (rate, width) if _needs_width(optimizer) else (rate,)
    made: Any = call_of_user(optimizer, *given)
    if not (hasattr(made, "init") and hasattr(made, "update")):
        raise UserTypeError(
            "optimizer(learning_rate) must give an optax transformation; it gave a "
            f"{type(made).__name__}"
        )
    return made


def _needs_width(optimizer: Callable[..., Any]) -> bool:
    """Whether two arguments have no default: those of optax's own have one."""
    try:
        parameters = inspect.signature(optimizer).parameters.values()
    except ValueError:  # of some built-in functions nothing is known
        return False
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    needed = [p for p in parameters if p.kind in positional and p.default is p.empty]
    return len(needed) >= 2


def _ascending(values: list, name: str, least: int) -> tuple:
    if len(values) < least or values != sorted(set(values)):
        raise UserValueError(
            f"{name} must be at least {least}, each larger than the one before: "
            f"{', '.join(f'{value:g}' for value in values)}"
        )
    return tuple(values)


def _rows(inputs: tuple, targets: Any, size: int | None) -> tuple[int, int] | None:
    """How many examples there are, and how many are drawn for a step."""
    if size is None:
        return None
    if targets is None:
        raise UserValueError(
            "batch_size needs targets: a loss that holds the labels of all examples "
            "cannot be given some of them"
        )
    leaves = [x for x in jax.tree.leaves((inputs, targets)) if not _tree.is_key(x)]
    lengths = {jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0 for leaf in leaves}
    if len(lengths) != 1:
        raise UserValueError(
            "inputs and targets must have as many examples on their leading axes; they "
            f"have {', '.join(map(str, sorted(lengths)))}"
        )
    (num_examples,) = lengths
    size = _checked.whole_number(size, "batch_size", least=1, most=num_examples)
    return num_examples, size
