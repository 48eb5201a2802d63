"""The signals and Jacobians of a recurrent layer along its time axis."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _tree
from gradstab.network import find_recurrent_scan, follow_state, layer_slice
from gradstab.records import Recurrence, Spectrum
from gradstab.spectra.dense import dense_jacobian, dense_spectrum
from gradstab.spectra.growth import fit_growth
from gradstab.spectra.linear_map import jacobian_map

# A recurrent layer of a thousand steps has a thousand state Jacobians; so many of
# them, evenly spaced, show the course.
_MOST_STEPS = 64


def layer_recurrence(network, flow, place, /, *, examples, max_dense):
    """The state of a recurrent layer along time, its gradient and its Jacobians.

    Args:
        network: from `find_layers`.
        flow: from `propagate`.
        place: the layer.
        examples: for how many examples Jacobians are computed.
        max_dense: the largest state whose Jacobians are computed.

    Returns:
        A `Recurrence`; None if the layer has no recurrent scan, or one whose state
        does not have the examples on its leading axis.
    """
    block = network.blocks[place.block]
    scan = find_recurrent_scan(block)
    if scan is None:
        return None
    parts = (flow.replay.contexts, flow.replay.entering, flow.gradients)
    arguments = [layer_slice(part, place) for part in parts]
    path = _follow(scan, *arguments)
    num = flow.signals.gradient_norms.shape[1]
    by_example = all(part.shape[1] == num for part in path.after)
    if not by_example:
        return None
    if scan.parts.reverse:
        path = jax.tree.map(lambda array: array[::-1], path)
    size = sum(math.prod(part.shape[2:]) for part in path.after)
    norms = np.asarray(_over_time(path.gradients))
    rms = np.asarray(_over_time(path.after)) / math.sqrt(size)
    steps: tuple[int, ...] = ()
    if size <= max_dense:
        count = min(scan.parts.length, _MOST_STEPS)
        spaced = np.linspace(0, scan.parts.length - 1, count)
        steps = tuple(int(step) for step in np.unique(np.round(spaced)))
    keep = min(examples, num)
    return Recurrence(
        state_rms=np.sqrt(np.mean(np.square(rms), axis=1)),
        gradient_norms=norms,
        jacobians=tuple(_state_spectrum(scan, path, t, keep) for t in steps),
        forward=fit_growth(rms),
        backward=fit_growth(norms),
        name=place.name,
        state_size=size,
        jacobian_steps=steps,
    )


@functools.partial(jax.jit, static_argnums=0)
def _follow(scan, context, data, cotangent):
    return follow_state(scan, context, data, cotangent)


@jax.jit
def _over_time(parts):
    """Norm per step and example over all parts of the state."""
    return jax.vmap(jax.vmap(_tree.safe_norm))(parts)


def _state_spectrum(scan, path, step, keep) -> Spectrum:
    consts, carries, xs = path.others
    at = functools.partial(jax.tree.map, lambda array: array[step])
    others = (consts, at(carries), at(xs))
    return dense_spectrum(_state_jacobians(scan, keep, others, at(path.before)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _state_jacobians(scan, keep, others, state):
    def step(*state):
        after = scan.step(others, state)
        num = after[0].shape[0]
        return jnp.concatenate([part.reshape(num, -1) for part in after], axis=1)

    linear = jacobian_map(step, state, coupled=False)
    return dense_jacobian(linear, dtype=state[0].dtype, num_examples=keep)
