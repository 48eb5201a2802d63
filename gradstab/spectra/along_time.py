"""The signals and Jacobians of a recurrent layer along its time axis."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import numpy as np

from gradstab import _tree
from gradstab.network import LayerRun, follow_state
from gradstab.network.extremes import largest, typical
from gradstab.network.recurrence import RecurrentScan, Trajectory
from gradstab.program.compiled import compiled
from gradstab.records import Recurrence, root_mean_square
from gradstab.spectra.dense import dense_spectrum
from gradstab.spectra.growth import fit_growth
from gradstab.spectra.lyapunov import FEWEST
from gradstab.spectra.state_jacobians import (
    StateJacobians,
    couples,
    exponents_along_time,
    state_before,
)
from gradstab.spectra.underflow import growth_beyond_underflow

# A recurrent layer of a thousand steps has a thousand state Jacobians; so many of
# them, evenly spaced, show the course.
_MOST_STEPS = 64

_SHORT = (
    "{} steps are too few for an error of the Lyapunov exponents: "
    f"at least {FEWEST} are needed"
)
_JOINT = "its state has no example axis: that of the whole batch is followed as one"


def layer_recurrences(
    layer: LayerRun, /, *, examples: int, max_dense: int, spectra_on: str = "auto"
) -> list[Recurrence]:
    """The states of a recurrent layer along time, their gradients and Jacobians.

    Args:
        layer: a layer of a run.
        examples: for how many examples Jacobians are computed.
        max_dense: the largest state whose singular values are computed step by step.
        spectra_on: where they and the exponents are computed, see `layer_spectrum`.

    Returns:
        A `Recurrence` for each recurrent scan of the layer (two if it is bidirectional)
        whose state has the examples on its leading axis. A state that depends on the
        data but has no example axis is followed as that of the whole batch.
    """
    recurrences = []
    for scan in layer.recurrences:
        follow = compiled(scan, follow_state)
        path = follow(layer.context, layer.data, layer.gradient)
        recurrences.append(
            _recurrence(scan, path, layer.name, examples, max_dense, spectra_on)
        )
    names = [f"{layer.name}@{number}" for number in range(1, len(recurrences) + 1)]
    return recurrences if len(recurrences) < 2 else _renamed(recurrences, names)


def _renamed(recurrences, names: Sequence[str]):
    pairs = zip(recurrences, names, strict=True)
    return [dataclasses.replace(recurrence, name=name) for recurrence, name in pairs]


def _recurrence(
    scan: RecurrentScan,
    path: Trajectory,
    name,
    examples,
    max_dense: int,
    spectra_on: str,
):
    joint = scan.joint or bool(
        compiled(scan, couples)(path.operands(0), state_before(path, 0))
    )
    num = 1 if scan.joint else path.after[0].shape[1]
    size = sum(map(_tree.real_size, path.after)) // scan.parts.length // num
    norms = np.asarray(_over_time(path.gradients, num))
    rms = np.asarray(_over_time(path.after, num), np.float64) / math.sqrt(size)
    # The state whose Jacobian is square: of an example, or of the whole batch.
    which = {"keep": 1 if joint else min(examples, num)}
    which |= {"joint": joint, "size": size * num if joint else size}
    steps, jacobians = _shown(scan, path, max_dense, spectra_on, which)
    along = exponents_along_time(scan, path, spectra_on=spectra_on, **which)
    dtype = str(_tree.widest(*(part.dtype for part in path.after)))
    forward, faded = growth_beyond_underflow(fit_growth, rms, dtype)
    from_end = functools.partial(fit_growth, from_end=True)
    backward, lost = growth_beyond_underflow(from_end, norms, dtype, backward=True)
    tops, middles = map(np.asarray, _extremes_over_time(path.after))
    steepest, usual = map(np.asarray, _extremes_over_time(path.gradients))
    return Recurrence(
        state_rms=root_mean_square(rms, 1),
        gradient_norms=norms,
        jacobians=jacobians,
        forward=forward,
        backward=backward,
        exponents=along.lyapunov.values,
        exponents_error=along.lyapunov.errors,
        finite_time_exponents=along.finite.values,
        finite_time_errors=along.finite.errors,
        name=name,
        state_size=size,
        jacobian_steps=steps,
        note="; ".join(filter(None, (_note(scan, along.lyapunov), faded, lost))),
        state_max=tops,
        state_median=middles,
        gradient_max=steepest,
        gradient_median=usual,
        dtype=dtype,
    )


def _note(scan: RecurrentScan, lyapunov):
    short = scan.parts.length < FEWEST and lyapunov.values.size
    notes = [_JOINT] * scan.joint + [_SHORT.format(scan.parts.length)] * bool(short)
    return "; ".join(notes)


def _shown(
    scan: RecurrentScan, path: Trajectory, max_dense: int, spectra_on: str, which
):
    """Some steps and the singular values of their state Jacobians."""
    if which["size"] > max_dense:
        return (), ()
    count = min(scan.parts.length, _MOST_STEPS)
    spaced = np.linspace(0, scan.parts.length - 1, count)
    steps = tuple(int(step) for step in np.unique(np.round(spaced)))
    state_jacobians = StateJacobians(scan, path, chunk=1, **which)
    return steps, tuple(
        dense_spectrum(
            state_jacobians[step], coupled=which["joint"], spectra_on=spectra_on
        )
        for step in steps
    )


@jax.jit
def _extremes_over_time(parts):
    """Largest and median entry per step over all parts of the state."""
    return jax.vmap(lambda *step: (largest(*step), typical(*step)))(*parts)


@functools.partial(jax.jit, static_argnums=1)
def _over_time(parts, num: int):
    """Norm per step and example over all parts of the state."""
    rows = [part.reshape(part.shape[0], num, -1) for part in parts]
    return jax.vmap(jax.vmap(_tree.safe_norm))(rows)
