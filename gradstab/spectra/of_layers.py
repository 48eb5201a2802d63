"""The Jacobian of one layer of a network."""

import functools
import math

from gradstab import _compat
from gradstab.network import compiled, layer_slice
from gradstab.spectra.coupling import leads_with_examples
from gradstab.spectra.dense import dense_jacobian, dense_spectrum
from gradstab.spectra.linear_map import jacobian_map


def layer_spectrum(network, flow, place, /, *, coupled, examples, max_dense):
    """The singular values of a layer's Jacobian, per example or of the whole batch.

    Args:
        network: from `find_layers`.
        flow: from `propagate`.
        place: the layer.
        coupled: whether it mixes examples, from `coupled_layers`.
        examples: for how many examples, if it does not.
        max_dense: Jacobians whose smaller side is above this are left out.

    Returns:
        ``(spectrum, "")``, or ``(None, why not)``.
    """
    block, num = network.blocks[place.block], network.num_examples
    if not block.in_vars:
        return None, "no Jacobian: its input is integers"
    if not leads_with_examples(network, place):
        return None, "no Jacobian: examples are not on the leading axis"
    rows = math.prod(place.out_shape) // (1 if coupled else num)
    columns = sum(map(math.prod, place.in_shapes)) // (1 if coupled else num)
    if min(rows, columns) > max_dense:
        return None, (
            f"no singular values: the smaller side of its {rows} x {columns} Jacobian "
            f"is above max_dense={max_dense}"
            + (" (training-mode statistics couple the batch)" if coupled else "")
        )
    keep = 1 if coupled else min(examples, num)
    context = layer_slice(flow.replay.contexts, place)
    data = layer_slice(flow.replay.entering, place)
    jacobians = compiled(block, _jacobians, coupled, keep)(context, data)
    return dense_spectrum(jacobians, coupled=coupled), ""


def _jacobians(block, coupled, keep, context, data):
    backward_only = any(_compat.backward_only(eqn) for eqn in block.eqns)
    function = functools.partial(block, context)
    linear = jacobian_map(function, data, coupled=coupled, forward=not backward_only)
    return dense_jacobian(linear, num_examples=keep)
