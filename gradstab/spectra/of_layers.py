"""The Jacobian of one layer of a network."""

import functools
import math

import jax

from gradstab import _compat
from gradstab.network import layer_slice
from gradstab.spectra.coupling import mixes_examples
from gradstab.spectra.dense import dense_jacobian, dense_spectrum
from gradstab.spectra.linear_map import jacobian_map


def layer_spectrum(network, flow, place, /, *, examples, max_dense):
    """The singular values of a layer's Jacobian, per example or of the whole batch.

    Args:
        network: from `find_layers`.
        flow: from `propagate`.
        place: the layer.
        examples: for how many examples, if the layer does not mix them.
        max_dense: Jacobians whose smaller side is above this are left out.

    Returns:
        ``(spectrum, "")``, or ``(None, why not)``.
    """
    block = network.blocks[place.block]
    num = flow.signals.gradient_norms.shape[1]
    if not block.in_vars:
        return None, "no Jacobian: its input is integers"
    if any(shape[:1] != (num,) for shape in (*place.in_shapes, place.out_shape)):
        return None, "no Jacobian: examples are not on the leading axis"
    contexts, entering = flow.replay.contexts, flow.replay.entering
    context = layer_slice(contexts, place)
    data = layer_slice(entering, place)
    coupled = bool(_couples(block, context, data))
    rows = math.prod(place.out_shape) // (1 if coupled else num)
    columns = sum(map(math.prod, place.in_shapes)) // (1 if coupled else num)
    if min(rows, columns) > max_dense:
        return None, (
            f"no singular values: the smaller side of its {rows} x {columns} Jacobian "
            f"is above max_dense={max_dense}"
            + (" (training-mode statistics couple the batch)" if coupled else "")
        )
    keep = 1 if coupled else min(examples, num)
    jacobians = _jacobians(block, coupled, keep, context, data)
    return dense_spectrum(jacobians, coupled=coupled), ""


@functools.partial(jax.jit, static_argnums=0)
def _couples(block, context, data):
    return mixes_examples(functools.partial(block, context), data)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _jacobians(block, coupled, keep, context, data):
    backward_only = any(_compat.backward_only(eqn) for eqn in block.eqns)
    function = functools.partial(block, context)
    linear = jacobian_map(function, data, coupled=coupled, forward=not backward_only)
    return dense_jacobian(linear, dtype=data[0].dtype, num_examples=keep)
