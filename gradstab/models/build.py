"""Models from plain names and numbers: what a command line and a config file hold."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gradstab.initializers import named
from gradstab.models.activations import activation
from gradstab.models.lstm import LSTM
from gradstab.models.mlp import MLP
from gradstab.models.normalization import normalization
from gradstab.models.resnet import ResNet
from gradstab.models.rnn import RNN
from gradstab.models.transformer import Transformer

_EVERY = {
    "init": "lecun_normal",
    "head_init": None,
    "dropout": 0.0,
    "dtype": None,
    "param_dtype": "float32",
}
_LAYERED = {
    "bias_init": "zeros",
    "use_bias": True,
    "norm": "none",
    "norm_momentum": None,
    "num_groups": None,
    "slope": None,
    "aux_heads": (),
}
_RECURRENT = {
    "depth": 1,
    "width": 64,
    "recurrent_init": "orthogonal",
    "sequence_output": False,
}

OPTIONS: dict[str, dict] = {
    "mlp": {
        **_EVERY,
        **_LAYERED,
        "depth": 20,
        "width": 100,
        "widths": None,
        "activation": "sigmoid",
        "norm_output": False,
        "skip": False,
    },
    "resnet": {
        **_EVERY,
        **_LAYERED,
        "depth": 20,
        "width": 64,
        "kernel_size": None,
        "activation": "relu",
        "init": "he_normal",
        "norm": "batch",
        "preactivation": True,
        "residual_scale": 1.0,
        "skip_init": False,
        "last_init": None,
    },
    "lstm": {**_EVERY, **_RECURRENT, "forget_bias": None, "bias_init": None},
    "rnn": {
        **_EVERY,
        **_RECURRENT,
        "activation": "tanh",
        "slope": None,
        "bias_init": "zeros",
    },
    "transformer": {
        **_EVERY,
        **_LAYERED,
        "depth": 6,
        "width": 64,
        "num_heads": 4,
        "mlp_width": None,
        "max_length": None,
        "vocab_size": None,
        "activation": "gelu",
        "norm": "layer",
        "prenorm": True,
        "causal": False,
        "sequence_output": False,
        "residual_scale": 1.0,
        "embed_init": None,
    },
}
"""The options of every kind of model with their defaults, for `build`."""


def build(
    kind: str, /, *, in_shape: Sequence[int], num_outputs: int, seed=0, **options
) -> nnx.Module:
    """A model of a kind, from options that are strings, numbers or None.

    Most options are those of the class, under the same name; initialisers, activations
    and normalisations are names. Different are: ``init`` (``kernel_init``), ``width``
    (``hidden`` of recurrent models), ``slope`` of leaky_relu, ``norm_momentum`` of
    batch and ``num_groups`` of group normalisation, ``norm="none"``, ``widths`` (an
    MLP's, instead of depth and width), ``vocab_size`` (a transformer over tokens),
    ``mlp_width`` (4 widths without it), ``max_length`` (the input's without it).

    Args:
        kind: ``"mlp"``, ``"resnet"``, ``"lstm"``, ``"rnn"`` or ``"transformer"``.
        in_shape: of one example, without the batch. Convolutional residual networks
            take (height, width, channels), recurrent ones and transformers (time,
            features), transformers over tokens (time,).
        num_outputs: number of logits.
        seed: an integer or a PRNG key.
        **options: see `OPTIONS` for those of each kind and their defaults. None stands
            for the default.

    Raises:
        KeyError: for an unknown kind, activation, normalisation or initialiser.
        ValueError: for an option that the kind does not have or that another one makes
            meaningless, and for an ``in_shape`` that does not fit.

    >>> model = build("mlp", in_shape=(8, 8), num_outputs=10, depth=50, width=32)
    >>> model(jnp.zeros((5, 8, 8))).shape, model.blocks.dense.kernel.shape
    ((5, 10), (49, 32, 32))
    """
    if kind not in OPTIONS:
        raise KeyError(f"no model named {kind!r}; known: {', '.join(OPTIONS)}.")
    given = {name: value for name, value in options.items() if value is not None}
    strangers = [name for name in given if name not in OPTIONS[kind]]
    if strangers:
        raise ValueError(
            f"{kind!r} has no option {', '.join(strangers)}; it has: "
            f"{', '.join(sorted(OPTIONS[kind]))}."
        )
    if "widths" in given and ("depth" in given or "width" in given):
        raise ValueError("give widths, or depth and width, but not both.")
    chosen: Any = SimpleNamespace(**{**OPTIONS[kind], **given})
    make = {
        "mlp": _mlp,
        "resnet": _resnet,
        "lstm": _lstm,
        "rnn": _rnn,
        "transformer": _transformer,
    }[kind]
    # Streams of their own: with or without dropout, one seed gives one initialisation.
    return make(tuple(in_shape), num_outputs, chosen, _streams(seed))


def _streams(seed):
    key = jax.random.key(seed) if isinstance(seed, int) else seed
    key_params, key_dropout = jax.random.split(key)
    return nnx.Rngs(params=key_params, dropout=key_dropout)


def _mlp(in_shape, num_outputs, chosen, rngs):
    return MLP(
        math.prod(in_shape),
        num_outputs,
        widths=chosen.widths or (chosen.width,) * chosen.depth,
        norm_output=chosen.norm_output,
        skip=chosen.skip,
        **_layered(chosen),
        rngs=rngs,
    )


def _resnet(in_shape, num_outputs, chosen, rngs):
    dense = chosen.kernel_size is None
    if not dense:
        _expect_in_shape("a convolutional resnet", in_shape, "height, width, channels")
    return ResNet(
        math.prod(in_shape) if dense else in_shape[-1],
        num_outputs,
        width=chosen.width,
        depth=chosen.depth,
        kernel_size=chosen.kernel_size,
        preactivation=chosen.preactivation,
        residual_scale=chosen.residual_scale,
        skip_init=chosen.skip_init,
        last_init=_init(chosen.last_init, chosen),
        **_layered(chosen),
        rngs=rngs,
    )


def _lstm(in_shape, num_outputs, chosen, rngs):
    return LSTM(
        _features("lstm", in_shape),
        num_outputs,
        forget_bias=chosen.forget_bias,
        bias_init=_init(chosen.bias_init, chosen),
        **_recurrent(chosen),
        rngs=rngs,
    )


def _rnn(in_shape, num_outputs, chosen, rngs):
    return RNN(
        _features("rnn", in_shape),
        num_outputs,
        activation=_activation(chosen),
        bias_init=_init(chosen.bias_init, chosen),
        **_recurrent(chosen),
        rngs=rngs,
    )


def _transformer(in_shape, num_outputs, chosen: Any, rngs):
    tokens = chosen.vocab_size is not None
    if tokens:
        _expect_in_shape("a transformer with vocab_size", in_shape, "time")
    return Transformer(
        chosen.vocab_size if tokens else _features("transformer", in_shape),
        num_outputs,
        width=chosen.width,
        depth=chosen.depth,
        num_heads=chosen.num_heads,
        mlp_width=chosen.mlp_width or 4 * chosen.width,
        max_length=chosen.max_length or in_shape[0],
        tokens=tokens,
        prenorm=chosen.prenorm,
        causal=chosen.causal,
        sequence_output=chosen.sequence_output,
        residual_scale=chosen.residual_scale,
        embed_init=_init(chosen.embed_init, chosen),
        **_layered(chosen),
        rngs=rngs,
    )


def _every(chosen):
    """The arguments that every class takes."""
    return {
        "kernel_init": _init(chosen.init, chosen),
        "head_init": _init(chosen.head_init, chosen),
        "dropout": chosen.dropout,
        "dtype": None if chosen.dtype is None else jnp.dtype(chosen.dtype),
        "param_dtype": jnp.dtype(chosen.param_dtype),
    }


def _layered(chosen):
    """Those of the networks that are not recurrent."""
    return {
        **_every(chosen),
        "activation": _activation(chosen),
        "bias_init": _init(chosen.bias_init, chosen),
        "use_bias": chosen.use_bias,
        "norm": _norm(chosen),
        "aux_heads": tuple(chosen.aux_heads),
    }


def _recurrent(chosen):
    """Those of the recurrent ones."""
    return {
        **_every(chosen),
        "hidden": chosen.width,
        "depth": chosen.depth,
        "recurrent_init": _init(chosen.recurrent_init, chosen),
        "sequence_output": chosen.sequence_output,
    }


def _activation(chosen):
    if chosen.slope is None:
        return activation(chosen.activation)
    if chosen.activation != "leaky_relu":
        raise ValueError(f"slope is of leaky_relu; {chosen.activation!r} has none.")
    return activation("leaky_relu", slope=chosen.slope)


def _init(name: str | None, chosen) -> Any:
    if name is None:
        return None
    # Names scaled_* take the activation's gain; an LSTM has none to choose.
    return named(name, _activation(chosen) if hasattr(chosen, "activation") else None)


def _norm(chosen):
    options = {}
    for option, key, owner in [
        ("norm_momentum", "momentum", "batch"),
        ("num_groups", "num_groups", "group"),
    ]:
        value = getattr(chosen, option)
        if value is not None and chosen.norm != owner:
            raise ValueError(f"{option} is of norm={owner!r}; norm is {chosen.norm!r}.")
        if value is not None:
            options[key] = value
    return None if chosen.norm == "none" else normalization(chosen.norm, **options)


def _features(kind, in_shape):
    _expect_in_shape(kind, in_shape, "time, features")
    return in_shape[-1]


def _expect_in_shape(kind, in_shape, axes):
    if len(in_shape) != len(axes.split(", ")):
        raise ValueError(
            f"{kind} takes examples of shape ({axes}); in_shape is {in_shape}."
        )
