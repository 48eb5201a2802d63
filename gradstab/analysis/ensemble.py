"""What the gradients of a model do over many initialisations.

Theories of random networks speak of the mean over weights, a report of one network of
one draw of them. All initialisations go through one compiled program that maps the
signals of `propagate` over them.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from gradstab import _tree
from gradstab.analysis.initialization import ensemble_size, member
from gradstab.analysis.trunk import Trunk
from gradstab.network import Context, propagate
from gradstab.network.blocks import Block
from gradstab.network.losses import Loss, LossProgram, as_loss
from gradstab.network.replay import Network, Replay
from gradstab.program.compiled import compiled
from gradstab.records import NORMAL_95, Growth, Signals
from gradstab.report import Ensemble, GrowthPair, OverSeeds
from gradstab.spectra import MOST_OF_CONSTANT, fit_growth

# Arrays alive at once per number of parameters and of activations: the parameters, the
# copy that a scan slices and their gradient; the data that enter and leave a layer,
# their gradient, a probe, its product, and one intermediate of each kind.
_PARAM_COPIES = 3
_ACTIVATION_COPIES = 8

# The weights are often drawn from a split of the very same key: the signs of a probe
# would be those of the weights, and the mean square of a layer 27 % too large.
_APART = 0x5EED


class EnsembleSignals(NamedTuple):
    """Signals of every initialisation.

    Attributes:
        signals: every array with a leading axis over the initialisations.
        mean_square: (seeds, layers) estimate of the mean squared singular value.
        loss: (seeds,)
    """

    signals: Signals
    mean_square: jax.Array
    loss: jax.Array


def ensemble_signals(
    network: Network,
    params: Any,
    state: Any,
    inputs: tuple,
    /,
    *,
    loss: Callable[..., Any] | None = None,
    key: jax.Array | None = None,
    max_bytes: float = 2**30,
) -> EnsembleSignals:
    r"""The signals of every initialisation, in one compiled program.

    Beside them the mean squared singular value of every layer's Jacobian, from one
    standard normal cotangent w per example: :math:`\|J^T w\|^2 / n_{in}`, whose
    expectation is :math:`\|J\|_F^2 / n_{in}`. Over examples and initialisations its
    scatter averages out, and the standard error over initialisations includes it.

    Args:
        network: from `find_layers`, with the parameters of one initialisation.
        params: parameters with a leading axis over initialisations.
        state: state, likewise.
        inputs: tuple of inputs, the same for all.
        loss: see `propagate`. Without it each example of each initialisation gets its
            own random unit cotangent.
        key: a PRNG key for cotangents; `jax.random.key(0)` if not given.
        max_bytes: as many initialisations are mapped over at once as fit into this, by
            the sizes of parameters and activations; one at least.

    Returns:
        Signals and mean squares. Cost: one `propagate` and one more vector-Jacobian
        product of each layer, per initialisation.

    Raises:
        ValueError: if the leading axes of parameters and state differ in length.
    """
    num = ensemble_size(params, state)
    key = jax.random.fold_in(jax.random.key(0) if key is None else key, _APART)
    keys = jax.random.split(key, num)
    rows = _chunks(num, _bytes_per_seed(network, params), max_bytes)
    program, constants = None, ()
    if loss is not None:
        program, constants = as_loss(loss, network.program.output_shapes)
    run = compiled(network, _of_all, program)
    draws = run(params, state, inputs, constants, keys, jnp.asarray(rows))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:num], draws)


def summarize(
    draws: EnsembleSignals, trunk: Trunk, /
) -> tuple[Signals, Ensemble, GrowthPair]:
    """Means over the initialisations, and the growth of both signals.

    Args:
        draws: from `ensemble_signals`.
        trunk: the layers along which growth is measured, from `find_trunk`.

    Returns:
        ``(signals, ensemble, growth)``. The signals are those of a typical
        initialisation: geometric means of root mean squares and norms, means of the
        rest. The law of growth is that of the geometric mean; its rate and error are
        mean and standard error over the initialisations.
    """
    signals = jax.tree.map(np.asarray, draws.signals)
    names, places = signals.names, list(trunk.layers)
    rms = OverSeeds(signals.forward_rms, logarithmic=True)
    norms = OverSeeds(_geometric(signals.gradient_norms), logarithmic=True)
    own = OverSeeds(signals.param_gradient_norm, logarithmic=True)
    trunk_names = tuple(names[i] for i in places)
    forward, forward_rate = growth_over_seeds(rms.values[:, places], trunk_names)
    backward, backward_rate = growth_over_seeds(norms.values[:, places], trunk_names)
    ensemble = Ensemble(
        forward_rms=rms,
        gradient_norm=norms,
        param_gradient_norm=own,
        mean_square=OverSeeds(np.asarray(draws.mean_square)),
        forward_rate=forward_rate,
        backward_rate=backward_rate,
        names=names,
    )
    return typical(signals), ensemble, GrowthPair(forward, backward)


def growth_over_seeds(
    norms: ArrayLike, names: Sequence[str] = (), /
) -> tuple[Growth, OverSeeds]:
    r"""The law of growth of an ensemble, and its rate in every initialisation.

    The law is fitted once, to the geometric mean: chosen for each initialisation by
    itself it would differ between them, and a rate that is cut to zero where it is not
    certain is biased. With the law held, the rate is fitted to the steps of every
    initialisation. It is linear in the logarithms, so its mean is the rate of the mean
    logarithm.

    What this compares with: mean-field theory predicts, at infinite width, the mean of
    the ratio of the squared norms in neighbouring layers, farther from the source (the
    input or the loss) over nearer to it. The rate here is that of the *mean logarithm*,
    which every layer that the signal passes lowers by what it adds to the variance of
    :math:`\ln \|\cdot\|`: O(1 / width), 5 / (4 n) in a relu network of width n (Hanin
    and Nica 2020), 0.0024 at width 512. So the rate of the forward signal is lower than
    theory's; that of the gradient, counted from the input like all rates, is higher.
    Over many layers the mean of the squares itself is no substitute, as a few draws
    carry it once depth / width nears one: `OverSeeds.log_root_mean_square` adds the
    variance to the mean logarithm instead.

    Args:
        norms: (seeds, layers), layers counted from the input.
        names: the layers, for the record.

    Returns:
        The growth, with rate and error over the initialisations, and the rates
        ``(seeds,)``: per layer if the law is 'constant' or 'unknown'. Initialisations
        with a norm that is zero or not finite have the rate NaN and are left out of
        both. A law is 'unknown' if its rate is within three standard errors of zero (in
        small ensembles as many as Student's distribution asks for); and it is
        'constant' if the drift over all initialisations changes the norm less than
        e-fold over the network, at 95 %.
    """
    norms = np.asarray(norms, np.float64)
    usable = np.all(np.isfinite(norms) & (norms > 0), axis=1)
    levels = np.log(norms[usable])
    mean = np.exp(levels.mean(axis=0)) if usable.any() else norms.mean(axis=0)
    growth = fit_growth(mean, names)

    def rates(growth: Growth) -> OverSeeds:
        values = np.full(len(norms), np.nan)
        if usable.any() and growth.depth > 2:
            values[usable] = _rates(growth, levels)
        return OverSeeds(values)

    over_seeds = rates(growth)
    if over_seeds.count < 2:
        return growth, over_seeds
    if growth.law not in ("constant", "unknown") and not _certain(over_seeds):
        laws = (growth.law, "constant")
        growth = dataclasses.replace(growth, law="unknown", compatible=laws, offset=0.0)
        over_seeds = rates(growth)
    return _over_seeds(growth, over_seeds), over_seeds


def _over_seeds(growth: Growth, rates: OverSeeds) -> Growth:
    """The growth with rate and error over the initialisations."""
    quantile = -float(special.stdtrit(rates.count - 1, 0.025))
    error = float(rates.error) * quantile / NORMAL_95
    bound = abs(float(rates.mean)) + NORMAL_95 * error
    if growth.law in ("constant", "unknown"):
        bounded = bound * (growth.depth - 1) <= MOST_OF_CONSTANT
        if bounded and "constant" in growth.compatible:
            return dataclasses.replace(
                growth,
                rate=0.0,
                error=bound / NORMAL_95,
                law="constant",
                compatible=("constant",),
            )
        laws = (
            growth.compatible
            if growth.law == "unknown"
            else (*growth.compatible, "exponential")
        )
        growth = dataclasses.replace(
            growth, law="unknown", compatible=laws, settling=0.0
        )
    return dataclasses.replace(growth, rate=float(rates.mean), error=error)


def typical(signals: Signals, /) -> Signals:
    """The signals of a typical initialisation: one number per layer.

    Args:
        signals: every array with a leading axis over initialisations.
    """
    logarithmic = {
        *("forward_rms", "gradient_norms", "gradient_rms"),
        *("forward_max", "forward_median", "gradient_max", "gradient_median"),
        *("param_norm", "param_gradient_norm"),
    }
    arrays = dict(vars(signals))
    names = arrays.pop("names")
    columns: dict = {
        name: _geometric(array, axis=0) if name in logarithmic else array.mean(axis=0)
        for name, array in arrays.items()
        if name != "disconnected"
    }
    return Signals(
        **columns, disconnected=signals.disconnected.all(axis=0), names=names
    )


def _geometric(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Geometric mean of the positive values; the median if fewer than half are so."""
    moved = OverSeeds(np.moveaxis(values, axis, 0), logarithmic=True)
    most = 2 * moved.count >= len(moved.values)
    return np.where(most, moved.typical, np.median(moved.values, axis=0))


def _rates(growth: Growth, levels: np.ndarray) -> np.ndarray:
    """The rate of the law in each row, by least squares from layer to layer."""
    layer = 1.0 + np.arange(levels.shape[1])
    columns = np.stack([np.diff(curve) for curve in _curves(growth, layer)], axis=1)
    return np.linalg.lstsq(columns, np.diff(levels, axis=1).T)[0][0]


def _curves(growth: Growth, layer: np.ndarray) -> list[np.ndarray]:
    """The law of a growth, then its transient, as functions of the layer."""
    if growth.law == "power":
        return [np.log(layer + growth.offset)]
    if growth.law == "exp-sqrt":
        return [np.sqrt(layer + growth.offset)]
    settling = [np.exp(-layer / growth.settling)] if growth.settling else []
    return [layer, *settling]


def _certain(rates: OverSeeds):
    """Whether their mean is above what chance exceeds as rarely as three errors."""
    quantile = -float(special.stdtrit(max(rates.count - 1, 1), 0.00135))
    return abs(rates.mean) > quantile * rates.error


def _chunks(num: int, size, max_bytes: float) -> np.ndarray:
    """Positions in rows of equal length that fit; the last one is repeated to fill."""
    length = max(int(min(max_bytes // size, num)), 1)
    length = -(-num // -(-num // length))
    positions = np.arange(-(-num // length) * length)
    return np.minimum(positions, num - 1).reshape(-1, length)


def _bytes_per_seed(network: Network, params: Any) -> int:
    leaves = _tree.floating_leaves(member(params, 0))
    taps = jax.eval_shape(network.zero_taps)
    owned = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
    passing = sum(math.prod(tap.shape) * tap.dtype.itemsize for tap in taps)
    return _PARAM_COPIES * owned + _ACTIVATION_COPIES * passing


def _of_all(
    network: Network,
    program: LossProgram | None,
    params: Any,
    state: Any,
    inputs: tuple,
    constants: tuple,
    keys: jax.Array,
    rows: jax.Array,
) -> EnsembleSignals:
    loss = program and Loss(program, constants)

    def one(seed: jax.Array) -> EnsembleSignals:
        # Every initialisation sees the same inputs, the same keys among them.
        arrays = (keys[seed], *member((params, state), seed), inputs)
        key, *arrays = _tree.fresh_keys(arrays)
        key_loss, key_probe = jax.random.split(key)
        run = propagate(network, *arrays, loss=loss, key=key_loss)
        squares = _mean_squares(network, run.replay, key_probe)
        return EnsembleSignals(run.signals, squares, run.loss)

    return jax.lax.map(jax.vmap(one), rows)


def _mean_squares(network: Network, replay: Replay, key: jax.Array) -> jax.Array:
    # All signs are drawn at once: what draws them is the longest part of the program.
    sizes = [_tree.real_size(array) for array in replay.activations]
    signs = jax.random.rademacher(key, (sum(sizes),), jnp.int8)
    signs = jnp.split(signs, np.cumsum(sizes)[:-1])
    columns = []
    for number, block in enumerate(network.blocks):
        out, data = replay.activations[number], replay.entering[number]
        cotangent = _tree.from_real(signs[number], out)
        context = replay.contexts[number]
        if network.is_scanned(number):
            axes = (None, Context(varying=0, shared=None), 0, 0)
            over_layers = jax.vmap(_mean_square, in_axes=axes)
            columns.append(over_layers(block, context.stacked(), data, cotangent))
        else:
            columns.append(_mean_square(block, context, data, cotangent)[None])
    return network.in_depth_order(columns)


def _mean_square(
    block: Block, context: Context, data: tuple, cotangent: jax.Array
) -> jax.Array:
    if not data:
        return jnp.full((), jnp.nan, _tree.real_dtype(cotangent.dtype))
    products = jax.vjp(lambda *data: block(context, *data), *data)[1](cotangent)
    size = sum(map(_tree.real_size, data))
    return jnp.square(_tree.safe_norm(products)) / size
