"""Why numbers of a layer are not there: a sentence beside every NaN."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from gradstab.network.activations import unread
from gradstab.network.blocks import Block
from gradstab.network.replay import Network
from gradstab.records import Layer, Spectrum


def with_reasons(
    layers: Sequence[Layer], network: Network, /, *, loss: bool
) -> tuple[Layer, ...]:
    """The layers with the reasons for what is not a number in them.

    Args:
        layers: records of all layers of the network, complete.
        network: from `find_layers`.
        loss: whether there is one.
    """
    pairs = zip(layers, network.layers, strict=True)
    return tuple(
        dataclasses.replace(
            layer, missing=_reasons(layer, network.blocks[place.block], loss)
        )
        for layer, place in pairs
    )


def _reasons(layer: Layer, block: Block, loss: bool) -> tuple[str, ...]:
    """Sentences ``names: why``, one for each reason, that name every field with NaN."""
    lost = _names(layer)
    grouped: dict[str, list[str]] = {}
    for name in lost:
        grouped.setdefault(_reason(name, lost, layer, block, loss), []).append(name)
    return tuple(f"{', '.join(names)}: {why}" for why, names in grouped.items())


def _names(layer: Layer) -> list[str]:
    """The fields with a NaN anywhere."""
    fields = [f.name for f in dataclasses.fields(layer) if not f.metadata.get("static")]
    return [name for name in fields if _has_nan(getattr(layer, name))]


def _has_nan(value: Spectrum | np.ndarray | float | None) -> bool:
    if isinstance(value, Spectrum):
        return bool(np.isnan(value.values).any() or np.isnan(value.errors).any())
    return value is not None and bool(np.isnan(value).any())


def _reason(name: str, lost: list[str], layer: Layer, block: Block, loss: bool) -> str:
    """The first that holds."""
    backward = name.startswith(("gradient", "param_gradient"))
    of_gradients = name in ("gradient_cosines", "param_gradient_norm")
    by_units = name in ("saturated_fraction", "dead_fraction")
    finite = "forward_rms" not in lost and np.isfinite(layer.forward_rms)
    reasons = (
        (by_units and unread(block), unread(block)),
        (by_units and finite, "it has no activation"),
        (not finite, "its data are not finite"),
        (of_gradients and not loss, "there is no loss"),
        (backward and "gradient_rms" in lost, "its gradient is not a number"),
        (backward and not np.isfinite(layer.gradient_rms), "its gradient is infinite"),
        (name == "gradient_norm", "its examples are not on the leading axis"),
        (name == "gradient_cosines" and not layer.params, "it has no parameters"),
        (
            name == "gradient_cosines" and "gradient_norm" in lost,
            "its examples are not on the leading axis",
        ),
        (
            name == "gradient_cosines",
            "the gradient of an example is zero, or that of no parameter is one of an "
            "example alone",
        ),
        (name == "alignment", "a Jacobian is zero, and so has no leading direction"),
        (name == "jacobian", "its derivatives are not finite"),
    )
    return next((why for holds, why in reasons if holds), "it is out of range")
