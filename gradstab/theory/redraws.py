"""How far a layer strays from theory by chance: its weights, drawn again."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat, _tree
from gradstab.network.blocks import Block, Context
from gradstab.network.foreign import over_leading
from gradstab.program import reads
from gradstab.program.compiled import compiled
from gradstab.program.walk import walk
from gradstab.theory.reading import Reader

# Of weights that are drawn before the layer is evaluated with all of them, and of
# intermediate results of that.
_MOST_BYTES = 2**26


class Draw(NamedTuple):
    """How to draw a parameter again.

    Attributes:
        variable: the variable that holds it.
        kind: 'weights', 'orthogonal' or 'bias'.
        value: its value.
    """

    variable: _compat.Var
    kind: str
    value: np.ndarray

    def source(self) -> Callable[[np.random.Generator], np.ndarray]:
        """A function from a generator to other values of the same distribution."""
        if self.kind == "orthogonal":
            return functools.partial(_turned, self.value)
        value = self.value.astype(np.float64)
        mean, scale = np.mean(value), np.std(value)
        if self.kind == "weights":
            # Not of mean zero: where all inputs are positive, that would fix the sum of
            # all pre-activations, half of the chance in a convolution with relu.
            return lambda generator: scale * generator.standard_normal(value.shape)
        # A bias is constant along the axes of examples and positions.
        shape = _distinct(value)

        def bias(generator: np.random.Generator) -> np.ndarray:
            noise = generator.standard_normal(shape)
            if noise.size > 1:  # theory takes mean and variance of biases as they are
                noise = (noise - np.mean(noise)) / np.std(noise)
            return np.broadcast_to(mean + scale * noise, value.shape)

        return bias


class Gains(NamedTuple):
    """What one evaluation of a layer yields.

    Attributes:
        log_square: logarithm of the mean square of the data that leave.
        log_gain: natural logarithm of the norm of the gradient that enters the layer
            over that at its output; over examples the root mean square of that ratio.
    """

    log_square: np.ndarray
    log_gain: np.ndarray


def gains(
    block: Block,
    draws: Sequence[Draw],
    joint: bool,
    context: Context,
    data: Sequence[jax.Array | np.ndarray],
    cotangent: jax.Array | np.ndarray,
    generator: np.random.Generator,
    num: int,
    /,
) -> tuple[Gains, Gains]:
    """`Gains` of a layer as it is, and of one with other weights, ``num`` times.

    The data that enter and the gradient at the output stay as they are. Weights and
    biases are drawn again from the Gaussian of their own mean and variance (weights of
    mean zero), orthogonal weights by permutations and signs of their rows and columns.
    So the spread of the redrawn values is the standard error of the measurement at
    this width, for these examples, whatever lies within the layer.

    Args:
        block: the block.
        draws: a `Draw` for each random parameter.
        joint: whether the norm is of all examples together.
        context: its `Context`.
        data: tuple with the data that enter.
        cotangent: gradient at the output.
        generator: of NumPy: drawing in JAX would take longer to compile than all else.
        num: how often to draw.

    Returns:
        Gains as measured, and gains (num,).
    """
    variables = tuple(draw.variable for draw in draws)
    run = compiled(block, _gains, variables, joint)
    # Without anything to draw it is the same each time.
    count = num + 1 if draws else 1
    few = count * sum(draw.value.nbytes for draw in draws) <= _MOST_BYTES
    at_once = count if few else 1
    numbers = np.arange(at_once)
    found = [
        run(numbers, values, context, data, cotangent)
        for values in _values(draws, generator, count, at_once)
    ]
    table = np.concatenate([np.stack(part, axis=1) for part in found])
    table = np.broadcast_to(table.astype(np.float64), (num + 1, len(Gains._fields)))
    return Gains(*table[0]), Gains(*table[1:].T)


def _values(
    draws: Sequence[Draw], generator: np.random.Generator, count: int, at_once: int
) -> Iterator[list[np.ndarray]]:
    """For each parameter its values as they are, then others; some rows at a time."""
    sources = [draw.source() for draw in draws]
    for first in range(0, count, at_once):
        rows = [
            np.empty((at_once, *draw.value.shape), draw.value.dtype) for draw in draws
        ]
        for number in range(at_once):
            for draw, source, row in zip(draws, sources, rows, strict=True):
                row[number] = source(generator) if first + number else draw.value
        yield rows


def _gains(
    block: Block,
    variables: tuple[_compat.Var, ...],
    joint: bool,
    rows: jax.Array,
    values: list[jax.Array],
    context: Context,
    data: Sequence[jax.Array],
    cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Logarithms of mean square and gain for every row of the values."""

    def of_row(row: tuple[jax.Array, list[jax.Array]]) -> tuple[jax.Array, jax.Array]:
        drawn = dict(zip(variables, row[1], strict=True))
        out, pull = jax.vjp(lambda x: _evaluated(block, context, drawn, x), *data)
        (back,) = pull(cotangent)
        log_square = 2 * jnp.log(_tree.safe_norm(out)) - np.log(out.size)
        return log_square, _log_gain(cotangent, back, joint)

    scratch = sum(reads.num_bytes(v) for eqn in block.eqns for v in eqn.outvars)
    if len(rows) * scratch <= _MOST_BYTES:
        # All at once they are few products of large matrices.
        return over_leading(block.eqns, of_row)((rows, values))
    return jax.lax.map(of_row, (rows, values))


def _evaluated(
    block: Block, context: Context, drawn: dict[_compat.Var, jax.Array], x: jax.Array
) -> jax.Array:
    env = {**block.environment(context, (x,)), **drawn}
    return walk(block.eqns, env)[block.out_var]


def _log_gain(cotangent: jax.Array, back: jax.Array, joint: bool) -> jax.Array:
    norm = _tree.safe_norm if joint else jax.vmap(_tree.safe_norm)
    wide = _tree.widest(cotangent.dtype, back.dtype)
    ratio = norm(back).astype(wide) / norm(cotangent).astype(wide)
    # Examples without a gradient say nothing. Squares, as theory is of squares: the
    # mean logarithm would be lower by a quarter of their relative variance.
    largest = jnp.nanmax(ratio)
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    # The squares of very small and of very large ratios are out of range.
    return jnp.log(jnp.nanmean(jnp.square(ratio / unit))) / 2 + jnp.log(unit)


def _turned(matrix: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Rows and columns in another order and with random signs."""
    rows, columns = (generator.permutation(size) for size in matrix.shape)
    signs = [generator.choice([-1, 1], size).astype(np.int8) for size in matrix.shape]
    return matrix[rows][:, columns] * signs[0][:, None] * signs[1][None, :]


def _distinct(value: np.ndarray) -> tuple[int, ...]:
    """The shape of the values that differ: 1 along axes along which they do not."""
    return tuple(
        1
        if np.array_equal(value, np.broadcast_to(value.take([0], i), value.shape))
        else n
        for i, n in enumerate(value.shape)
    )


def draws_of(
    reader: Reader,
    products: Sequence[tuple[_compat.Var, bool]],
    shifts: Sequence[_compat.Var],
    /,
) -> tuple[Draw, ...]:
    """The parameters of a layer that are random in theory.

    Args:
        reader: the layer's values.
        products: pairs (variable, whether the weights are orthogonal).
        shifts: variables of biases.
    """
    values = reader.values()
    kinds = {v: "orthogonal" if orthogonal else "weights" for v, orthogonal in products}
    kinds.update(dict.fromkeys(shifts, "bias"))
    return tuple(
        Draw(variable, kind, np.asarray(values[variable]))
        for variable, kind in kinds.items()
        if variable in values  # not one that the block itself makes
    )
