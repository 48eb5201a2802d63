"""``gradstab transfer``."""

import functools
import math
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import optax

from gradstab import _checked, data, models, training
from gradstab.cli import output
from gradstab.cli.prepare import on_targets, sorted_parts
from gradstab.cli.targets import load_function
from gradstab.cli.transfer_options import Transfer
from gradstab.errors import UserValueError, call_of_user
from gradstab.scaling import (
    DEPTH_SCHEMES,
    SCHEMES,
    Trend,
    learning_rate_transfer,
    parametrize,
)
from gradstab.scaling import transfer as coordinate_check

_SIZES = {"width": (64, 128, 256), "depth": (4, 8, 16), "batch": (32, 64, 128)}
_OPTIMIZERS = {
    "sgd": (optax.sgd, 1e-3),
    "adam": (optax.adam, 1e-5),
    "muon": (optax.contrib.muon, 1e-4),
}
_DEPTHS = {"mlp": 3, "lstm": 1, "rnn": 1}
_SEQUENCES = ("lstm", "rnn", "transformer")
# Units of an attention head: heads of one size at all widths, as muP wants them.
_HEAD = 16
_OF_OWN = ("model", "width", "depth", "activation", "batch_size")


class _Subject(NamedTuple):
    """What is trained.

    Attributes:
        make: ``make(size, key)``.
        inputs: tuple of inputs.
        loss: ``loss(output)``.
    """

    make: Callable[..., Any]
    inputs: tuple
    loss: Callable[..., Any]


def run(options: Transfer, /) -> int:
    """Measure, print and write; returns the exit status."""
    sizes, rates = _sizes(options), _numbers(options.learning_rates, float, "rates")
    _check(options, rates)
    plot = output.prepared_figure(options.plot, overwrite=options.overwrite)
    path = output.prepared(options.json, overwrite=options.overwrite)
    console = output.console(quiet=options.quiet, stderr=path == output.STANDARD_OUTPUT)
    subject = _target(options, sizes) if options.target else _own(options, sizes)
    found = _measured(options, sizes, rates, subject)
    if path == output.STANDARD_OUTPUT:
        _print_json(found)
    elif path is not None:
        found.save(path, overwrite=options.overwrite)
    found.show(console)
    if plot is not None:
        found.plot().savefig(plot)
    for name, written in (("plot", plot), ("results", path)):
        if written is not None and written != output.STANDARD_OUTPUT:
            console.print(f"{name}: {written}", soft_wrap=True, markup=False)
    return int(found.verdict in [Trend[n.upper()] for n in options.fail_on or ()])


def _check(options: Transfer, rates: tuple[float, ...]) -> None:
    known = SCHEMES if options.vary != "depth" else DEPTH_SCHEMES
    _checked.one_of(options.parametrization, "--parametrization", known)
    _checked.one_of(options.optimizer, "--optimizer", tuple(_OPTIMIZERS))
    _checked.seed(options.seed, "--seed")
    for name in options.fail_on or ():
        _checked.one_of(name, "--fail-on", ("grows", "shrinks", "flat", "unknown"))
    _checked.whole_number(options.seeds, "--seeds", least=1)
    for name in ("steps", "base_width", "width", "depth", "batch_size"):
        value = getattr(options, name)
        if value is not None:
            _checked.whole_number(value, f"--{name.replace('_', '-')}", least=1)
    if options.learning_rate is not None:
        _checked.number(options.learning_rate, "--learning-rate", above=0)
    if options.vary == "batch" and options.parametrization != "standard":
        raise UserValueError(
            f"--parametrization {options.parametrization} is one of the width, and "
            f"--vary is {options.vary}"
        )
    if options.base_width is not None and options.vary != "width":
        raise UserValueError(
            "--base-width is of --vary width; over depth the base is the smallest"
        )
    if options.base_width is not None and options.parametrization == "standard":
        raise UserValueError(
            "--base-width is of a --parametrization other than standard"
        )
    if rates and options.learning_rate is not None:
        raise UserValueError("give --learning-rate or --learning-rates, but not both")
    if rates and (options.vary != "width" or options.folder is not None):
        raise UserValueError(
            "--learning-rates is of widths (--vary width), and keeps no --folder"
        )
    changed = [n for n in _OF_OWN if getattr(options, n) != getattr(Transfer, n)]
    if options.target and changed:
        raise UserValueError(
            f"--{changed[0].replace('_', '-')} is of gradstab's own models; "
            f"{options.target} brings its model and its inputs"
        )


def _sizes(options: Transfer) -> tuple[int, ...]:
    _checked.one_of(options.vary, "--vary", tuple(_SIZES))
    return _numbers(options.widths, int, "widths") or _SIZES[options.vary]


def _numbers(words: Sequence[str] | None, kind: Any, name: str) -> tuple:
    """Numbers with commas or spaces between them."""
    parts = [part for word in words or () for part in word.split(",") if part]
    try:
        return tuple(map(kind, parts))
    except ValueError as error:
        option = "--learning-rates" if kind is float else f"--{name}"
        raise UserValueError(
            f"{option} {' '.join(words or ())}: expected numbers with commas or spaces "
            "between them"
        ) from error


def _own(options: Transfer, sizes: tuple[int, ...]) -> _Subject:
    """A model of gradstab's own, on the digits."""
    digits = data.load("digits")
    if options.model in _SEQUENCES:
        digits = digits.rows()
    size = sizes[-1] if options.vary == "batch" else options.batch_size
    if size > len(digits.x_train):
        raise UserValueError(
            f"a batch of {size} is more than the {len(digits.x_train)} training "
            "examples"
        )
    settings: dict[str, Any] = {
        "width": options.width,
        "depth": options.depth or _DEPTHS.get(options.model, 2),
        "activation": options.activation,
    }
    if options.model == "mlp" and options.activation is None:
        settings["activation"] = "tanh"
    widths = sizes if options.vary == "width" else (options.width,)
    head = math.gcd(_HEAD, *widths)

    def make(size: int, key: jax.Array) -> Any:
        own = settings if options.vary == "batch" else settings | {options.vary: size}
        if options.model == "transformer":
            own = own | {"num_heads": own["width"] // math.gcd(head, own["width"])}
        return models.build(
            options.model,
            in_shape=digits.input_shape,
            num_outputs=digits.num_outputs,
            seed=key,  # pyright: ignore[reportArgumentType]
            **own,
        )

    labels = digits.y_train[:size]
    loss = functools.partial(_of_first, labels)
    if options.vary != "batch":
        loss = on_targets(training.cross_entropy, labels)
    return _Subject(make, (digits.x_train[:size],), loss)


def _of_first(labels: Any, logits: Any) -> Any:
    return training.cross_entropy(logits, labels[: len(logits)])


def _target(options: Transfer, sizes: tuple[int, ...]) -> _Subject:
    """What a function of the user's makes, with its inputs and its loss."""
    target = options.target or ""
    function = load_function(target)

    def parts(size: int, key: jax.Array) -> tuple[tuple, tuple, Any]:
        return sorted_parts(call_of_user(function, size, key), target)

    def make(size: int, key: jax.Array) -> Any:
        model = parts(size, key)[0]
        return model if len(model) == 2 else model[0]

    size = sizes[-1] if options.vary == "batch" else sizes[0]
    _, inputs, loss = parts(size, jax.random.key(options.seed))
    if loss is None:
        raise UserValueError(
            f"{target} must return a loss(output) as the last of what it returns: "
            "there is nothing to train for without"
        )
    return _Subject(make, inputs, loss)


def _measured(
    options: Transfer,
    sizes: tuple[int, ...],
    rates: tuple[float, ...],
    subject: _Subject,
) -> Any:
    make, inputs, loss = subject
    optimizer, usual = _OPTIMIZERS[options.optimizer]
    chained = optimizer
    if options.parametrization != "standard":
        base: dict[str, Any] = {f"base_{options.vary}": options.base_width or sizes[0]}
        rules = parametrize(
            make,
            **base,
            scheme=options.parametrization,
            optimizer=options.optimizer,
            inputs=inputs,
        )
        make = rules.make

        def chained(rate: Any) -> Any:
            return optax.chain(optimizer(rate), rules.transform)

    common: dict[str, Any] = {
        "widths": sizes,
        "loss": loss,
        "seeds": options.seeds,
        "key": jax.random.key(options.seed),
        "progress": options.progress and not options.quiet,
    }
    if rates:
        return learning_rate_transfer(
            make,
            inputs,
            optimizer=chained,
            learning_rates=rates,
            steps=50 if options.steps is None else options.steps,
            **common,
        )
    return coordinate_check(
        make,
        inputs,
        optimizer=chained(options.learning_rate or usual),
        steps=4 if options.steps is None else options.steps,
        vary=options.vary,
        folder=options.folder,
        **common,
    )


def _print_json(found: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "found.json")
        found.save(path)
        print(path.read_text(encoding="utf-8"), end="")
