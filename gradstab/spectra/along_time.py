"""The signals and Jacobians of a recurrent layer along its time axis."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat, _tree
from gradstab.network import compiled, follow_state, layer_slice
from gradstab.records import Recurrence
from gradstab.spectra.coupling import mixes_examples
from gradstab.spectra.dense import dense_jacobian, dense_spectrum
from gradstab.spectra.growth import fit_growth
from gradstab.spectra.linear_map import jacobian_map

# A recurrent layer of a thousand steps has a thousand state Jacobians; so many of
# them, evenly spaced, show the course.
_MOST_STEPS = 64


def layer_recurrences(network, flow, place, /, *, examples, max_dense):
    """The states of a recurrent layer along time, their gradients and Jacobians.

    Args:
        network: from `find_layers`.
        flow: from `propagate`.
        place: the layer.
        examples: for how many examples Jacobians are computed.
        max_dense: the largest state whose Jacobians are computed.

    Returns:
        A `Recurrence` for each recurrent scan of the layer (two if it is bidirectional)
        whose state has the examples on its leading axis.
    """
    parts = (flow.replay.contexts, flow.replay.entering, flow.gradients)
    found = []
    for scan in network.recurrences[place.block]:
        path = compiled(scan, follow_state)(*(layer_slice(p, place) for p in parts))
        found.append(_recurrence(scan, path, place.name, examples, max_dense))
    names = [f"{place.name}@{number}" for number in range(1, len(found) + 1)]
    return found if len(found) < 2 else _renamed(found, names)


def _renamed(recurrences, names):
    pairs = zip(recurrences, names, strict=True)
    return [dataclasses.replace(recurrence, name=name) for recurrence, name in pairs]


def _recurrence(scan, path, name, examples, max_dense):
    num = path.after[0].shape[1]
    size = sum(math.prod(part.shape[2:]) for part in path.after)
    norms = np.asarray(_over_time(path.gradients))
    rms = np.asarray(_over_time(path.after)) / math.sqrt(size)
    coupled = bool(compiled(scan, _couples)(path.operands(0), _at(path.before, 0)))
    steps: tuple[int, ...] = ()
    if size * (num if coupled else 1) <= max_dense:
        count = min(scan.parts.length, _MOST_STEPS)
        spaced = np.linspace(0, scan.parts.length - 1, count)
        steps = tuple(int(step) for step in np.unique(np.round(spaced)))
    keep = 1 if coupled else min(examples, num)
    jacobians = compiled(scan, _state_jacobians, coupled, keep)
    return Recurrence(
        state_rms=np.sqrt(np.mean(np.square(rms), axis=1)),
        gradient_norms=norms,
        jacobians=tuple(
            dense_spectrum(
                jacobians(path.operands(step), _at(path.before, step)), coupled=coupled
            )
            for step in steps
        ),
        forward=fit_growth(rms),
        backward=fit_growth(norms),
        name=name,
        state_size=size,
        jacobian_steps=steps,
    )


@jax.jit
def _over_time(parts):
    """Norm per step and example over all parts of the state."""
    return jax.vmap(jax.vmap(_tree.safe_norm))(parts)


def _at(state, step):
    return tuple(part[step] for part in state)


def _step(scan, operands):
    """One step as a function of the state alone: its parts in, one array out."""

    def step(*state):
        after = scan.step(operands, state)
        num = after[0].shape[0]
        wide = _tree.widest(*(part.dtype for part in after))
        rows = [part.reshape(num, -1).astype(wide) for part in after]
        return jnp.concatenate(rows, axis=1)

    return step


def _couples(scan, operands, state):
    return mixes_examples(_step(scan, operands), state)


def _state_jacobians(scan, coupled, keep, operands, state):
    forward = not any(_compat.backward_only(eqn) for eqn in scan.body.jaxpr.eqns)
    step = _step(scan, operands)
    linear = jacobian_map(step, state, coupled=coupled, forward=forward)
    return dense_jacobian(linear, num_examples=keep)
