"""Models from plain names and numbers: what a command line and a config file hold."""

import functools
import itertools
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gradstab import _memory
from gradstab._checked import number, truth, whole_number
from gradstab._checked import seed as a_seed
from gradstab._model_options import OPTIONS as OPTIONS
from gradstab.initializers import named
from gradstab.models.activations import activation
from gradstab.models.lstm import LSTM
from gradstab.models.mlp import MLP
from gradstab.models.normalization import normalization
from gradstab.models.resnet import ResNet
from gradstab.models.rnn import RNN
from gradstab.models.transformer import Transformer

_count = functools.partial(whole_number, least=1)

_VALUES: dict[str, Any] = {
    **dict.fromkeys(("depth", "width", "num_heads", "mlp_width"), _count),
    **dict.fromkeys(("max_length", "vocab_size", "kernel_size", "num_groups"), _count),
    "dropout": functools.partial(number, least=0, below=1),
    "norm_momentum": functools.partial(number, least=0, most=1),
    **dict.fromkeys(("slope", "residual_scale", "forget_bias"), number),
    **dict.fromkeys(("use_bias", "norm_output", "skip", "preactivation"), truth),
    **dict.fromkeys(("skip_init", "prenorm", "causal", "sequence_output"), truth),
}


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
            meaningless, for a value that makes no sense, and for an ``in_shape`` that
            does not fit.
        MemoryError: if the parameters are larger than the memory at hand.

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
    for size in _sequence(in_shape, "in_shape"):
        whole_number(size, "in_shape", least=1)
    whole_number(num_outputs, "num_outputs", least=1)
    chosen: Any = SimpleNamespace(**{**OPTIONS[kind], **given})
    make = {
        "mlp": _mlp,
        "resnet": _resnet,
        "lstm": _lstm,
        "rnn": _rnn,
        "transformer": _transformer,
    }[kind]
    _check(chosen)
    _expect_room(kind, chosen, in_shape, num_outputs)
    # Streams of their own: with or without dropout, one seed gives one initialisation.
    return make(tuple(in_shape), num_outputs, chosen, _streams(seed))


def _check(chosen):
    """Names the option whose value makes no sense, before anything is built."""
    for name, check in _VALUES.items():
        value = getattr(chosen, name, None)
        if value is not None:
            check(value, name)
    for name, least in (("widths", 1), ("aux_heads", 0)):
        for value in _sequence(getattr(chosen, name, None) or (), name):
            whole_number(value, name, least=least)
    for name in ("dtype", "param_dtype"):
        if getattr(chosen, name) is not None:
            _floating(getattr(chosen, name), name)


def _sequence(values, name):
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f"{name} must be a sequence of whole numbers, got {values!r}")
    return values


def _floating(dtype, name):
    try:
        floating = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise ValueError(f"{name} must be a floating dtype, got {dtype!r}")


def _expect_room(kind, chosen, in_shape, num_outputs):
    """An error if the parameters alone do not fit into the memory at hand."""
    least = _least_parameters(kind, chosen, in_shape, num_outputs)
    size = least * jnp.dtype(chosen.param_dtype).itemsize
    room = _memory.memory_at_hand()
    if size > room:
        raise MemoryError(
            f"{kind} with {_sizes(chosen)} has at least {least:.3g} parameters, "
            f"{size / 2**30:.3g} GiB; {room / 2**30:.3g} GiB of memory are at hand: "
            "give a smaller width or depth"
        )


def _least_parameters(kind, chosen, in_shape, num_outputs):
    """How many parameters a model has at least: those of its large matrices."""
    if getattr(chosen, "widths", None):
        widths = [math.prod(in_shape), *chosen.widths, num_outputs]
        return sum(a * b for a, b in itertools.pairwise(widths))
    width, depth = chosen.width, chosen.depth
    if kind == "mlp":
        return width * (math.prod(in_shape) + (depth - 1) * width + num_outputs)
    if kind == "resnet":
        window = (chosen.kernel_size or 1) ** 2
        return width * (in_shape[-1] + depth * width * window + num_outputs)
    if kind == "transformer":
        blocks = depth * width * (4 * width + 2 * (chosen.mlp_width or 4 * width))
        return blocks + width * (chosen.max_length or in_shape[0])
    gates = 4 if kind == "lstm" else 1
    layers = width * (in_shape[-1] + (2 * depth - 1) * width)
    return gates * layers + width * num_outputs


def _sizes(chosen):
    names = ("widths",) if getattr(chosen, "widths", None) else ("depth", "width")
    return " and ".join(f"{name} {getattr(chosen, name)}" for name in names)


def _streams(seed):
    key = seed if isinstance(seed, jax.Array) else jax.random.key(a_seed(seed))
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
