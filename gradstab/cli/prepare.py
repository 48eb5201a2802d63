"""From options to data, model and loss."""

import functools
from typing import Any, NamedTuple

import jax
from flax import nnx

from gradstab import data as datasets
from gradstab import models, training
from gradstab._checked import one_of
from gradstab.cli.options import model_settings
from gradstab.cli.targets import call
from gradstab.errors import UserValueError
from gradstab.network.adapters import takes_parameters


class Task(NamedTuple):
    """What is trained or analysed.

    Attributes:
        data: a `gradstab.data.Dataset`, in the view that the model takes.
        model: an `nnx.Module`.
        loss: ``loss(output, y) -> scalar``.
        rates: an optax transformation that scales updates as the parametrisation of the
            model has it; None of the standard one, and without an optimiser.
    """

    data: datasets.Dataset
    model: nnx.Module
    loss: Any
    rates: Any = None


_LOSSES = {
    "classification": training.cross_entropy,
    "sequence-classification": training.cross_entropy,
    "regression": training.mean_squared_error,
}


# Those that can give an output at every time step.
_SEQUENCE_MODELS = ("lstm", "rnn", "transformer")


# What an optimiser is to a parametrisation: whether it divides by the gradient's size.
_KINDS = {"sgd": "sgd", "momentum": "sgd", "adam": "adam", "adamw": "adam"}


def prepare(
    options, /, *, aux_weight: float = 0.3, optimizer: str | None = None
) -> Task:
    """Load the data, shape them for the model, and build it.

    Args:
        options: with the fields of `ModelOptions`, `DataOptions` and ``seed``.
        aux_weight: weight of the loss of each auxiliary head.
        optimizer: with which it is trained, for the rates of its parametrisation.

    Raises:
        KeyError: for unknown names; the message lists the known ones.
        ValueError: for options that do not fit together.
        OSError: if a data file is missing or corrupt.
    """
    data = load_data(options)
    if options.parametrization in (None, "standard") or optimizer is None:
        model, rates = build_model(options, data, options.seed), None
    else:
        model, rates = _scaled_model(options, data, optimizer)
    loss = _LOSSES[data.task]
    if options.aux_heads:
        loss = training.with_auxiliary(loss, weight=aux_weight)
    return Task(data, model, loss, rates)


def _scaled_model(options, data, optimizer: str) -> tuple[nnx.Module, Any]:
    """A model in its parametrisation, and what scales its updates."""
    if options.base_width is None:
        raise UserValueError(
            f"--parametrization {options.parametrization} needs --base-width: the "
            "width that was tuned"
        )
    settings = _settings(options, data)
    width = settings.setdefault("width", models.OPTIONS[options.model]["width"])
    scaled = models.parametrized(
        options.model,
        in_shape=data.input_shape,
        num_outputs=data.num_outputs,
        optimizer=_KINDS.get(optimizer, "sgd"),  # others are refused where it is made
        **settings,
    )
    return scaled.make(width, jax.random.key(options.seed)), scaled.transform


def build_model(options, data, seed: int, /, *, dtype: str | None = None) -> nnx.Module:
    """The model of the options, for these data.

    Args:
        options: with the fields of `ModelOptions`.
        data: from `load_data`.
        seed: an integer or a PRNG key.
        dtype: of the computation; that of inputs and parameters by default.
    """
    return models.build(
        options.model,
        in_shape=data.input_shape,
        num_outputs=data.num_outputs,
        seed=seed,
        dtype=dtype,
        **_settings(options, data),
    )


def _settings(options, data) -> dict[str, Any]:
    """The options of the model that were given, and those that the data need."""
    settings = model_settings(options)
    if data.task == "sequence-classification":
        one_of(options.model, f"--data {options.data}: --model", _SEQUENCE_MODELS)
        settings.setdefault("sequence_output", True)
    return settings


def load_data(options, /) -> datasets.Dataset:
    """The data in the view that the model takes: vectors, images or sequences."""
    data = datasets.load(
        options.data,
        data_dir=options.data_dir,
        time_steps=options.time_steps,
        num_train=options.num_train,
        seed=options.seed,
    )
    if data.image_shape is None or options.time_steps is not None:
        return data
    if options.model in ("lstm", "rnn", "transformer"):
        return data.rows()
    if options.model == "resnet" and options.kernel_size is not None:
        return data.images()
    return data


def load_target(target, /) -> tuple:
    """Call ``module:function`` and sort what it returns.

    Args:
        target: such as ``my_package.my_module:make``.

    Returns:
        ``(arguments of analyze, loss or None)``.

    Raises:
        ValueError: if there is no such module or function, or it returns something
            else.
    """
    model, inputs, loss = sorted_parts(call(target), target)
    return (*model, *inputs), loss


def sorted_parts(made: Any, target: str, /) -> tuple[tuple, tuple, Any]:
    """What a function of the user's returned, as model, inputs and loss.

    Args:
        made: (apply, params, inputs[, loss]) or (model, inputs[, loss]).
        target: the name of the function, for the message.

    Returns:
        ``(apply, params)`` or ``(model,)``; the tuple of inputs; the loss or None.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(made, tuple) or not 2 <= len(made) <= 4:
        raise UserValueError(
            f"{target} must return (apply, params, inputs[, loss]) or (model, inputs[, "
            f"loss]); it returned {type(made).__name__}"
        )
    # A function comes with its parameters; a model holds them.
    takes = 3 if takes_parameters(made[0]) else 2
    if len(made) < takes or (len(made) == takes == 3 and takes_parameters(made[2])):
        raise UserValueError(
            f"{target} returned a function without its parameters: return (apply, "
            "params, inputs[, loss]); what the function holds itself is not seen"
        )
    *model, inputs = made[:takes]
    loss = made[takes] if len(made) > takes else None
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    return tuple(model), inputs, loss


def on_targets(loss, y, /):
    """The loss as a function of the output alone."""
    return functools.partial(_on_targets, loss, y)


def _on_targets(loss, y, output):
    return loss(output, y)
