"""Models from plain names and numbers: what a command line and a config file hold."""

import inspect
import itertools
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from gradstab import _memory
from gradstab._checked import number, truth, whole_number
from gradstab._checked import seed as a_seed
from gradstab._model_options import OPTIONS, ROWS
from gradstab.errors import UserKeyError, UserMemoryError, UserValueError
from gradstab.initializers import named
from gradstab.models.activations import activation
from gradstab.models.lstm import LSTM
from gradstab.models.mlp import MLP
from gradstab.models.normalization import normalization
from gradstab.models.resnet import ResNet
from gradstab.models.rnn import RNN
from gradstab.models.scaled import base_options, expect_complete, inputs_like
from gradstab.models.transformer import Transformer

if TYPE_CHECKING:  # which needs all that finds layers
    from gradstab.scaling import Parametrization

_CLASSES = {
    "mlp": MLP,
    "resnet": ResNet,
    "lstm": LSTM,
    "rnn": RNN,
    "transformer": Transformer,
}
# What an argument of a class is called as an option, if it is not called the same.
_OPTION = {"kernel_init": "init", "hidden": "width"}
_DTYPES = ("dtype", "param_dtype")


def build(
    kind: str, /, *, in_shape: Sequence[int], num_outputs: int, seed: int = 0, **options
) -> nnx.Module:
    """A model of a kind, from options that are strings, numbers or None.

    Most options are those of the class, under the same name; initialisers, activations
    and normalisations are names. Different are: ``init`` (``kernel_init``), ``width``
    (``hidden`` of recurrent models), ``slope`` of leaky_relu, ``norm_momentum`` of
    batch and ``num_groups`` of group normalisation, ``norm="none"``, ``widths`` (an
    MLP's, instead of depth and width), ``vocab_size`` (a transformer over tokens),
    ``mlp_width`` (4 widths without it), ``max_length`` (the input's without it).

    With ``parametrization`` ('mup', 'ntk', 'mean-field' or 'spectral') the initial
    values are those of the ``base_width`` rescaled to ``width``, as
    `gradstab.parametrize` does it; learning rates are the optimiser's: `parametrized`
    has them.

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
            does not fit; for a parametrisation without a base width.
        MemoryError: if the parameters are larger than the memory at hand.

    >>> model = build("mlp", in_shape=(8, 8), num_outputs=10, depth=50, width=32)
    >>> model(jnp.zeros((5, 8, 8))).shape, model.blocks.dense.kernel.shape
    ((5, 10), (49, 32, 32))
    """
    if kind not in OPTIONS:
        raise UserKeyError(f"no model named {kind!r}; known: {', '.join(OPTIONS)}.")
    given = {name: value for name, value in options.items() if value is not None}
    scheme = given.pop("parametrization", "standard")
    base_width = given.pop("base_width", None)
    if scheme == "standard":
        if base_width is not None:
            raise UserValueError(
                "base_width is of a parametrization other than 'standard'."
            )
        return _build(kind, in_shape, num_outputs, seed, given)
    if base_width is None:
        raise UserValueError(
            f"parametrization={scheme!r} needs base_width: the width at which the "
            "model was tuned, and at which nothing is rescaled."
        )
    width = given.pop("width", OPTIONS[kind]["width"])
    scaled = parametrized(
        kind,
        in_shape=in_shape,
        num_outputs=num_outputs,
        parametrization=scheme,
        base_width=base_width,
        width=width,
        **given,
    )
    key = seed if isinstance(seed, jax.Array) else jax.random.key(a_seed(seed))
    return scaled.make(width, key)


def parametrized(
    kind: str,
    /,
    *,
    in_shape: Sequence[int],
    num_outputs: int,
    base_width: int,
    parametrization: str = "mup",
    optimizer: str = "adam",
    **options,
) -> "Parametrization":
    """A model of a kind at all widths, with the learning rates of each parameter.

    This is `gradstab.parametrize` of `build`. Options hold at every width; an
    ``mlp_width`` is that of ``width``, and goes with it. The number of heads stays, so
    that their size grows and the queries take the factor that muP wants.

    Args:
        kind: as for `build`.
        in_shape: of one example.
        num_outputs: number of logits.
        base_width: the width at which the model was tuned; nothing is scaled there.
        parametrization: 'mup', 'ntk', 'mean-field', 'spectral' or 'standard'.
        optimizer: 'sgd', 'adam' or 'muon', see `gradstab.parametrize`.
        **options: those of `build`, but ``widths`` and ``aux_heads``.

    Returns:
        What `gradstab.parametrize` gives: ``.make(width, key)`` is the model, and
        ``.transform`` comes last in the chain of an optax optimiser.

    Raises:
        ValueError: as `build`, and as `gradstab.parametrize`; if a parameter of the
            model has no place in the parametrisation.

    >>> shapes = {"in_shape": (8,), "num_outputs": 2, "depth": 2}
    >>> scaled = parametrized("mlp", base_width=8, **shapes)
    >>> [(one.name, one.size, one.rate) for one in scaled.roles if one.role == "output"]
    [('head.kernel', -0.5, -1.0)]
    >>> model = scaled.make(64, jax.random.key(0))
    """
    from gradstab.scaling import parametrize

    if kind not in OPTIONS:
        raise UserKeyError(f"no model named {kind!r}; known: {', '.join(OPTIONS)}.")
    given = {name: value for name, value in options.items() if value is not None}
    whole_number(base_width, "base_width", least=1)
    reference = whole_number(given.pop("width", base_width), "width", least=1)

    def make(width: int, key: jax.Array) -> nnx.Module:
        own = base_options(given, reference, width)
        return _build(kind, in_shape, num_outputs, key, own)

    scaled = parametrize(
        make,
        base_width=base_width,
        scheme=parametrization,
        optimizer=optimizer,
        inputs=inputs_like(in_shape, tokens="vocab_size" in given),
    )
    expect_complete(scaled)
    return scaled


def _build(
    kind: str, in_shape: Sequence[int], num_outputs: int, seed: Any, given: dict
) -> nnx.Module:
    strangers = [name for name in given if name not in OPTIONS[kind]]
    if strangers:
        raise UserValueError(
            f"{kind!r} has no option {', '.join(strangers)}; it has: "
            f"{', '.join(sorted(OPTIONS[kind]))}."
        )
    if "widths" in given and ("depth" in given or "width" in given):
        raise UserValueError("give widths, or depth and width, but not both.")
    for size in _sequence(in_shape, "in_shape"):
        whole_number(size, "in_shape", least=1)
    whole_number(num_outputs, "num_outputs", least=1)
    chosen: Any = SimpleNamespace(**{**OPTIONS[kind], **given})
    for name, value in given.items():
        _check(name, value)
    _expect_room(kind, chosen, in_shape, num_outputs)
    in_features, derived = _from_input(kind, chosen, tuple(in_shape))
    # Streams of their own: with or without dropout, one seed gives one initialisation.
    return _CLASSES[kind](
        in_features,
        num_outputs,
        **_arguments(_CLASSES[kind], chosen) | derived,
        rngs=_streams(seed),
    )


def _check(name: str, value):
    """Names the option whose value makes no sense, before anything is built."""
    row = ROWS[name]
    check = _floating if name in _DTYPES else _CHECKS.get(row.kind)
    if check is not None:
        for each in _sequence(value, name) if row.many else (value,):
            check(each, name, **row.within)


def _sequence(values, name: str):
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise UserValueError(
            f"{name} must be a sequence of whole numbers, got {values!r}"
        )
    return values


def _floating(dtype: DTypeLike, name: str):
    try:
        floating = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise UserValueError(f"{name} must be a floating dtype, got {dtype!r}")


_CHECKS: dict[Any, Any] = {
    int: lambda value, name, least=1: whole_number(value, name, least=least),
    float: number,
    bool: truth,
}


def _expect_room(kind: str, chosen, in_shape: Sequence[int], num_outputs: int):
    """An error if the parameters alone do not fit into the memory at hand."""
    least = _least_parameters(kind, chosen, in_shape, num_outputs)
    size = least * jnp.dtype(chosen.param_dtype).itemsize
    room = _memory.memory_at_hand()
    if size > room:
        raise UserMemoryError(
            f"{kind} with {_sizes(chosen)} has at least {least:.3g} parameters, "
            f"{size / 2**30:.3g} GiB; {room / 2**30:.3g} GiB of memory are at hand: "
            "give a smaller width or depth"
        )


def _least_parameters(kind: str, chosen, in_shape: Sequence[int], num_outputs: int):
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


def _streams(seed: int):
    key = seed if isinstance(seed, jax.Array) else jax.random.key(a_seed(seed))
    key_params, key_dropout = jax.random.split(key)
    return nnx.Rngs(params=key_params, dropout=key_dropout)


def _from_input(kind: str, chosen, in_shape: Sequence[int]):
    """Features of the input, and arguments that follow from it or several options."""
    if kind == "mlp":
        widths = chosen.widths or (chosen.width,) * chosen.depth
        return math.prod(in_shape), {"widths": widths}
    if kind == "resnet" and chosen.kernel_size is None:
        return math.prod(in_shape), {}
    if kind == "resnet":
        _expect_in_shape("a convolutional resnet", in_shape, "height, width, channels")
        return in_shape[-1], {}
    if kind == "transformer":
        return _of_transformer(chosen, in_shape)
    return _features(kind, in_shape), {}


def _of_transformer(chosen, in_shape: Sequence[int]):
    tokens = chosen.vocab_size is not None
    if tokens:
        _expect_in_shape("a transformer with vocab_size", in_shape, "time")
    in_features = chosen.vocab_size if tokens else _features("transformer", in_shape)
    return in_features, {
        "tokens": tokens,
        "mlp_width": chosen.mlp_width or 4 * chosen.width,
        "max_length": chosen.max_length or in_shape[0],
    }


def _arguments(model, chosen):
    """The arguments of a class that are options, under their names there."""
    # That of the class itself is what its metaclass takes: anything.
    names = inspect.signature(model.__init__).parameters
    options = {name: _OPTION.get(name, name) for name in names}
    return {
        name: _argument(option, chosen)
        for name, option in options.items()
        if hasattr(chosen, option)
    }


def _argument(option, chosen):
    """The value of an option as the classes take it: functions in place of names."""
    value = getattr(chosen, option)
    if ROWS[option].kind is not str:
        return value
    if option == "activation":
        return _activation(chosen)
    if option == "norm":
        return _norm(chosen)
    if option in _DTYPES:
        return None if value is None else jnp.dtype(value)
    return _init(value, chosen)


def _activation(chosen):
    if chosen.slope is None:
        return activation(chosen.activation)
    if chosen.activation != "leaky_relu":
        raise UserValueError(f"slope is of leaky_relu; {chosen.activation!r} has none.")
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
            raise UserValueError(
                f"{option} is of norm={owner!r}; norm is {chosen.norm!r}."
            )
        if value is not None:
            options[key] = value
    return None if chosen.norm == "none" else normalization(chosen.norm, **options)


def _features(kind: str, in_shape: Sequence[int]):
    _expect_in_shape(kind, in_shape, "time, features")
    return in_shape[-1]


def _expect_in_shape(kind: str, in_shape: Sequence[int], axes):
    if len(in_shape) != len(axes.split(", ")):
        raise UserValueError(
            f"{kind} takes examples of shape ({axes}); in_shape is {in_shape}."
        )
