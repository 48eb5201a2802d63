"""The options of the models, a row for each: known without JAX.

A row is a field: its name, its type, the kinds of models that have it with the default
of each, and its help. `gradstab.models.build` checks values by their type and hands
each to the argument of its name of the model's class; the command has those of
`ModelOptions`. In both, None stands for the default.
"""

import dataclasses
import types
import typing
from typing import Any, NamedTuple

_RECURRENT = ("lstm", "rnn")
_LAYERED = ("mlp", "resnet", "transformer")
KINDS = ("mlp", "resnet", "lstm", "rnn", "transformer")


def _of(*kinds: str, default=None, within=None, **defaults) -> Any:
    """A row, of these kinds with one default or of each with its own.

    Args:
        *kinds: those of which ``default`` is the default.
        default: None where the class, another option or the input says it.
        within: bounds of numbers, see `gradstab._checked`; whole ones are from 1.
        **defaults: kinds with others.
    """
    defaults = dict.fromkeys(kinds, default) | defaults
    row = {"defaults": defaults, "within": within or {}}
    return dataclasses.field(default=None, metadata=row)


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The model; what is not given is as usual for its kind."""

    model: str = "mlp"
    """mlp, resnet, lstm, rnn or transformer."""
    depth: int | None = _of(mlp=20, resnet=20, lstm=1, rnn=1, transformer=6)
    """Hidden layers, blocks or recurrent layers."""
    width: int | None = _of(*KINDS, default=64, mlp=100)
    """Units of each."""
    widths: tuple[int, ...] | None = _of("mlp")
    """Units of each hidden layer of an mlp, instead of depth and width."""
    activation: str | None = _of(
        mlp="sigmoid", resnet="relu", rnn="tanh", transformer="gelu"
    )
    """identity, sigmoid, tanh, relu, leaky_relu, elu, selu, gelu, silu, softplus."""
    slope: float | None = _of(*_LAYERED, "rnn")
    """Of leaky_relu."""
    norm: str | None = _of(mlp="none", resnet="batch", transformer="layer")
    """none, batch, layer, group or rms."""
    norm_momentum: float | None = _of(*_LAYERED, within={"least": 0, "most": 1})
    """Of batch normalisation: the share of the old running statistics."""
    norm_output: bool | None = _of(mlp=False)
    """Normalise the logits of an mlp too."""
    num_groups: int | None = _of(*_LAYERED)
    """Of group normalisation."""
    init: str | None = _of(*KINDS, default="lecun_normal", resnet="he_normal")
    """Initialiser of the weights, such as he_normal or mean_field:1.5."""
    bias_init: str | None = _of(*_LAYERED, "rnn", default="zeros", lstm=None)
    """Initialiser of the biases."""
    head_init: str | None = _of(*KINDS)
    """Initialiser of the weights of the head."""
    recurrent_init: str | None = _of(*_RECURRENT, default="orthogonal")
    """Initialiser of the recurrent weights, gate by gate."""
    last_init: str | None = _of("resnet")
    """Initialiser of the last layer of each residual branch; zeros is Fixup's."""
    embed_init: str | None = _of("transformer")
    """Initialiser of a transformer's embedding."""
    forget_bias: float | None = _of("lstm")
    """Of an lstm."""
    use_bias: bool | None = _of(*_LAYERED, default=True)
    """Whether layers have biases."""
    dropout: float | None = _of(*KINDS, default=0.0, within={"least": 0, "below": 1})
    """Share of activations that are dropped in training."""
    skip: bool | None = _of(mlp=False)
    """Identity connections around the layers of an mlp."""
    aux_heads: tuple[int, ...] | None = _of(*_LAYERED, default=(), within={"least": 0})
    """Hidden layers that get a head of their own, from 0."""
    kernel_size: int | None = _of("resnet")
    """Makes a resnet convolutional."""
    preactivation: bool | None = _of(resnet=True)
    """Normalise and activate before the weights of a residual branch, or after."""
    residual_scale: float | None = _of("resnet", "transformer", default=1.0)
    """Factor of every residual branch."""
    skip_init: bool | None = _of(resnet=False)
    """A learnt factor of every residual branch that starts at zero."""
    num_heads: int | None = _of(transformer=4)
    """Attention heads of a transformer."""
    mlp_width: int | None = _of("transformer")
    """Hidden units of a transformer's MLPs."""
    prenorm: bool | None = _of(transformer=True)
    """Normalise before a transformer's sub-blocks, or after."""
    causal: bool | None = _of(transformer=False)
    """Whether a transformer sees only the past."""
    parametrization: str | None = _of(*KINDS, default="standard")
    """standard, mup, ntk, mean-field or spectral: how initial values go from the base
    width to the width, and in training the learning rate of each parameter."""
    base_width: int | None = _of(*KINDS)
    """At which a parametrisation changes nothing: the width that was tuned."""


@dataclasses.dataclass(frozen=True)
class FurtherOptions:
    """Those that the command sets by itself or does not have."""

    dtype: str | None = _of(*KINDS)
    """Of the computation; that of inputs and parameters by default."""
    param_dtype: str | None = _of(*KINDS, default="float32")
    """Of the parameters."""
    sequence_output: bool | None = _of(*_RECURRENT, "transformer", default=False)
    """Logits at every time."""
    vocab_size: int | None = _of("transformer")
    """Makes a transformer one over tokens."""
    max_length: int | None = _of("transformer")
    """Longest sequence of a transformer."""


class Row(NamedTuple):
    """An option of models.

    Attributes:
        kind: the type of its value; of a tuple, that of an entry.
        many: whether it is a tuple.
        defaults: by kind of model, for those that have it.
        within: bounds of numbers.
    """

    kind: Any
    many: bool
    defaults: dict[str, Any]
    within: dict[str, float]


def _row(field, hint):
    (kind,) = set(typing.get_args(hint)) - {types.NoneType}
    many = typing.get_origin(kind) is tuple
    kind = typing.get_args(kind)[0] if many else kind
    return Row(kind, many, **field.metadata)


ROWS: dict[str, Row] = {
    field.name: _row(field, typing.get_type_hints(group)[field.name])
    for group in (ModelOptions, FurtherOptions)
    for field in dataclasses.fields(group)
    if field.metadata
}
"""All options by name."""

OPTIONS: dict[str, dict] = {
    kind: {
        name: row.defaults[kind] for name, row in ROWS.items() if kind in row.defaults
    }
    for kind in KINDS
}
"""The options of every kind of model with their defaults, for `build`."""
