"""Initialisers by name, for the command line: ``he_normal``, ``mean_field:1.5``."""

import functools
import math
from collections.abc import Callable
from typing import Any

from jax.nn.initializers import Initializer

from gradstab.errors import UserKeyError, UserTypeError, UserValueError
from gradstab.initializers import variance
from gradstab.initializers.orthogonal import delta_orthogonal, looks_linear, orthogonal
from gradstab.initializers.recurrent import chrono_bias, forget_bias, identity_rnn
from gradstab.initializers.residual import constant, ones, zeros

_FAMILY = {
    f"{family}_{kind}": getattr(variance, f"{family}_{kind}")
    for family in ("lecun", "glorot", "xavier", "he", "kaiming")
    for kind in ("normal", "uniform")
}
_ALONE = {"ones": ones, "zeros": zeros}
_FOR_ACTIVATION = {f"scaled_{kind}": kind for kind in variance.DISTRIBUTIONS}
_NUMBER_OPTIONAL = {
    "delta_orthogonal": delta_orthogonal,
    "forget_bias": forget_bias,
    "identity": identity_rnn,
    "looks_linear": lambda scale=1.0: looks_linear(orthogonal(scale)),
    "orthogonal": orthogonal,
}
_NUMBER_REQUIRED = {
    "chrono_bias": chrono_bias,
    "constant": constant,
    "mean_field": variance.mean_field,
    "normal": variance.normal,
}

_NOT_NEGATIVE = ("chrono_bias", "mean_field", "normal", "orthogonal")

NAMES = {
    **dict.fromkeys(_ALONE, "takes no number"),
    **dict.fromkeys(_FAMILY, "optional gain: variance gain^2 over the fan"),
    **dict.fromkeys(_FOR_ACTIVATION, "fan-in variance, the activation's gain"),
    "chrono_bias": "number of time steps",
    "constant": "value",
    "delta_orthogonal": "optional scale",
    "forget_bias": "optional bias of the forget gate, in the order i, f, g, o",
    "identity": "optional scale",
    "looks_linear": "optional scale of the orthogonal blocks",
    "mean_field": "sigma_w: standard deviation sigma_w / sqrt(fan_in)",
    "normal": "standard deviation of a weight",
    "orthogonal": "optional scale",
}
"""What the number after the colon means, by name."""


@functools.lru_cache(maxsize=128)
def named(spec: str, /, activation: Callable[..., Any] | None = None) -> Initializer:
    """The initialiser that ``name`` or ``name:number`` stands for.

    Equal arguments give one function, so that models made of them are of one structure,
    for which a training step is compiled once.

    Args:
        spec: a name of `NAMES`, and after a colon its number, as in ``mean_field:1.5``.
        activation: the activation of the network. Only the ``scaled_*`` names use it:
            ``he_normal`` is that of ReLU whatever the activation.

    Raises:
        KeyError: for an unknown name; the message lists the known ones.
        ValueError: if the number is missing, not wanted or not a number, or a
            ``scaled_*`` name comes without an activation.

    >>> import jax
    >>> named("identity:1.5")(jax.random.key(0), (1, 1))
    Array([[1.5]], dtype=float32)
    >>> named("he_normal") is named("he_normal")
    True
    """
    if not isinstance(spec, str):
        raise UserTypeError(
            f"an initialiser's name is text such as he_normal, not {spec!r}"
        )
    name, colon, text = spec.partition(":")
    if name not in NAMES:
        raise UserKeyError(
            f"no initialiser named {name!r}; the known ones: {', '.join(sorted(NAMES))}"
        )
    number = _number(spec, text) if colon else None
    if name in _FAMILY:
        return _FAMILY[name]() if number is None else _FAMILY[name](gain=number)
    if name in _NUMBER_OPTIONAL:
        build = _NUMBER_OPTIONAL[name]
        return build() if number is None else build(number)
    if name in _NUMBER_REQUIRED:
        if number is None:
            raise UserValueError(f"{name!r} needs a number, {NAMES[name]}: {name}:1.5")
        return _NUMBER_REQUIRED[name](number)
    if number is not None:
        raise UserValueError(f"{name!r} takes no number; it was given as {spec!r}")
    return _ALONE[name] if name in _ALONE else _for_activation(name, activation)


def _for_activation(name: str, activation):
    if activation is None:
        raise UserValueError(
            f"{name!r} takes its variance from the activation; pass one"
        )
    return variance.scaled_for(activation, _FOR_ACTIVATION[name])


def _number(spec, text):
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserValueError(
            f"the initialiser {spec!r} should read name:number; {text!r} is no number"
        )
    name = spec.partition(":")[0]
    if number < 0 and (name in _FAMILY or name in _NOT_NEGATIVE):
        raise UserValueError(f"{spec!r}: {text} is negative; expected {NAMES[name]}")
    return number
