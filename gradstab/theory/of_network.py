"""Theory beside the measurement, for each layer of a network as it is."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat
from gradstab.errors import UserValueError
from gradstab.network import LayerRun, NetworkRun
from gradstab.network.blocks import Block
from gradstab.program.trace import is_complex, real_size
from gradstab.records import Prediction
from gradstab.theory.laws import Law, NoTheoryError, given
from gradstab.theory.reading import Reader, within_range
from gradstab.theory.redraws import Gains, gains
from gradstab.theory.structure import steps_of
from gradstab.theory.walk import End, Walk

# Half the step of the derivative of a recursion with respect to the logarithm of its
# input: rounding is 1e-10 / step, truncation step^2.
_STEP = 1e-3

# Lengths are interpolated and summed to about this relative precision.
_ROUNDING = 1e-9


def predict(
    run: NetworkRun, /, *, redraws: int = 16, key: jax.Array | None = None
) -> Prediction:
    r"""Mean-field theory of every layer, and how far the measurement is from it.

    Weight and bias variances and the activation are read off each layer; activations
    are whatever functions of single entries its equations hold, none is looked up. From
    the data that enter the network the mean square of every entry (example by example,
    for convolutions position by position) is followed through all layers,

    .. math:: q^l = \sigma_w^2 E\,\phi(\sqrt{q^{l-1}} z)^2 + \sigma_b^2 ,

    never from a fixed point. A layer multiplies the norm of a gradient by
    :math:`\sqrt{\chi}`, :math:`\chi = \sigma_w^2 E\,\phi'(\sqrt{q^l} z)^2`. Identity
    connections add mean squares; layer and RMS normalisation divide by a number that is
    known in wide layers; batch normalisation in training mode has the gain of
    `batch_norm_gain`. After a layer without a theory the recursion starts anew from the
    data that were measured there.

    The standard error of a measurement is the spread of the same number over layers
    whose weights are drawn again, with the data that enter and the gradient at the
    output left as they are; that of the length is carried on from layer to layer. So
    neither examples nor units are taken for independent. It is of order
    1 / sqrt(width), and itself known to one part in sqrt(2 redraws).

    Args:
        run: from `propagate`.
        redraws: how often each layer is drawn again; 0 for a theory without errors.
        key: a PRNG key for that; `jax.random.key(0)` if not given.

    Returns:
        One number per layer of each kind; NaN, with a note, where there is no theory.
        Cost: for each layer ``redraws + 2`` evaluations and vector-Jacobian products,
        and half a second for each activation that is met for the first time.

    References:
        Poole et al. (2016), Exponential expressivity in deep neural networks through
        transient chaos, equation 3; Schoenholz et al. (2017), Deep information
        propagation, equation 14; for convolutions Xiao et al. (2018), Dynamical
        isometry and a mean field theory of CNNs.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gradstab.network import find_layers, propagate
        >>> def apply(weights, x):
        ...     for w in weights:
        ...         x = jnp.tanh(x @ w)
        ...     return x
        >>> weights = list(jax.random.normal(jax.random.key(1), (3, 100, 100)) / 10)
        >>> x = jnp.ones((1, 100))
        >>> network = find_layers(apply, weights, (x,))
        >>> found = predict(propagate(network, weights, (), (x,)))
        >>> found.activations[0], found.sigma_w.round(1)
        ('tanh', array([1., 1., 1.]))
        >>> bool(abs(found.forward_z[2]) < 4)
        True
    """
    if redraws == 1 or redraws < 0:
        raise UserValueError(f"redraws is {redraws}; a spread needs two or more, or 0.")
    depth = len(run.layers)
    key = jax.random.key(0) if key is None else key
    generator = np.random.default_rng(np.ravel(jax.random.key_data(key)))
    chance = generator, redraws
    columns, state = _Columns(depth), _State(None, 0.0)
    for number, layer in enumerate(run.layers):
        try:
            state = _layer(layer, state, chance, columns, number)
        except NoTheoryError as reason:
            columns.notes[number] = f"no theory: {reason}"
            state = _State(None, 0.0)
    return columns.prediction(run.network.names)


class _State(NamedTuple):
    """What theory says of the data between two layers.

    Attributes:
        law: of the data; None if it says nothing.
        variance: of the logarithm of their measured mean square.
    """

    law: Law | None
    variance: float


class _Columns:
    """The fields of `Prediction`, one entry per layer, filled as layers are met."""

    def __init__(self, depth: int) -> None:
        fields = dataclasses.fields(Prediction)
        arrays = [field.name for field in fields if not field.metadata.get("static")]
        self.arrays = {name: np.full(depth, np.nan) for name in arrays}
        self.activations, self.notes = [""] * depth, [""] * depth
        self.orthogonal = [False] * depth

    def put(self, number: int, **values: float) -> None:
        for name, value in values.items():
            self.arrays[name][number] = value

    def prediction(self, names: tuple[str, ...]) -> Prediction:
        return Prediction(
            **self.arrays,
            names=names,
            activations=tuple(self.activations),
            orthogonal=tuple(self.orthogonal),
            notes=tuple(self.notes),
        )


def _layer(
    layer: LayerRun,
    state: _State,
    chance: tuple[np.random.Generator, int],
    columns: _Columns,
    number: int,
) -> _State:
    """Fills in one layer; returns the state after it."""
    block = layer.function
    if any(map(is_complex, _variables(block))):
        raise NoTheoryError("complex numbers")
    if not all(map(real_size, _variables(block))):
        raise NoTheoryError("arrays without entries")
    context, data, cotangent = layer.context, layer.data, layer.gradient
    walk = Walk(Reader(block, context), steps_of(block))
    before = state.variance
    entering = data[0] if data else cotangent
    within_range(entering, "data")
    law = state.law or given(entering)
    joint = not all(x.shape[:1] == (layer.num_examples,) for x in (*data, cotangent))
    # What overflows is refused below.
    with jax.enable_x64(True), np.errstate(over="ignore"):
        shifts = (0.0, _STEP, -_STEP) if before else (0.0,)
        ends = [walk.end(law.scaled(1 + s), cotangent, joint) for s in shifts]
    joint = joint or walk.couples
    draws = walk.draws()
    measured, redrawn = gains(block, draws, joint, context, data, cotangent, *chance)
    rounding = _ROUNDING + 100 * float(jnp.finfo(cotangent.dtype).eps)
    for theirs, ours in zip(
        measured, (ends[0].log_square, ends[0].log_gain), strict=True
    ):
        if math.isinf(ours) and math.isfinite(theirs):
            raise NoTheoryError("sizes whose squares are out of range")
    errors = _Errors(ends, redrawn, before, rounding)
    columns.put(number, **_read(walk), **_compared(ends[0], measured, errors))
    columns.activations[number] = walk.activation
    columns.orthogonal[number] = any(w.orthogonal for w in walk.weights)
    columns.notes[number] = walk.note
    return _State(ends[0].law, errors.variance("log_square"))


def _variables(block: Block) -> tuple[_compat.Var, ...]:
    return (*block.in_vars, *(v for eqn in block.eqns for v in eqn.outvars))


def _read(walk: Walk) -> dict[str, float]:
    sigma_w = walk.weights[0].sigma if walk.weights else math.nan
    return {"sigma_w": sigma_w, "sigma_b": walk.sigma_b}


def _compared(end: End, measured: Gains, errors) -> dict[str, Any]:
    """The columns that set theory beside the measurement."""
    error = math.sqrt(errors.variance("log_square")) / 2
    error_of_gain = math.sqrt(errors.variance("log_gain"))
    rms, factor = np.exp([end.log_square / 2, end.log_gain])
    with np.errstate(invalid="ignore"):  # nothing goes through a dead layer
        above = np.subtract(measured.log_square, end.log_square) / 2
        of_gain = np.subtract(measured.log_gain, end.log_gain)
    return {
        "forward_rms": rms,
        "forward_error": rms * error,
        "forward_z": above / error,
        "gradient_factor": factor,
        "measured_gradient_factor": np.exp(measured.log_gain),
        "gradient_error": error_of_gain,
        "gradient_z": of_gain / error_of_gain,
        "chi": end.chi,
    }


class _Errors(NamedTuple):
    """What the logarithms measured at one layer may be off by."""

    ends: list
    redrawn: Gains
    before: float
    rounding: float

    def variance(self, name: str) -> float:
        """By chance in this layer, in those before it, and by rounding."""
        drawn = getattr(self.redrawn, name)
        if drawn.size == 0 or not np.all(np.isfinite(drawn)):
            return math.nan
        slope = 0.0
        if self.before:
            _, above, below = (getattr(end, name) for end in self.ends)
            slope = (above - below) / (math.log1p(_STEP) - math.log1p(-_STEP))
        chance = float(np.var(drawn, ddof=1))
        return self.before * slope**2 + chance + self.rounding**2
