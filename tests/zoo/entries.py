"""What an entry of the zoo is: a model as its user hands it over, and its layers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Handed(NamedTuple):
    """What a user gives to the analysis.

    Attributes:
        model: a module, a pair, a callable pytree, or ``apply``.
        args: the inputs; for a function its parameters first.
        options: `output`, `apply_kwargs`, `batched`, `boundaries`.
    """

    model: Any
    args: tuple
    options: dict


class Entry(NamedTuple):
    """A model of the zoo.

    Attributes:
        framework: the file it lives in.
        make: returns what is handed over.
        names: the layers a user expects, in depth order, written by hand.
        table: the embedding that integer inputs pick rows of: the chain starts there.
        positions: parameters that are added to the picked rows, if the table is used
            again later.
        couples: whether its examples act on each other.
        forward: whether its Jacobian exists in forward mode only.
        slow: whether it takes more than a few seconds.
    """

    framework: str
    make: Callable[[], Handed]
    names: tuple[str, ...]
    table: str | None = None
    positions: str | None = None
    couples: bool = False
    forward: bool = False
    slow: bool = False

    @property
    def name(self) -> str:
        """Framework and model."""
        return f"{self.framework}.{self.make.__name__}"


def shelf(framework: str):
    """An empty list of entries, and the decorator that adds to it."""
    found: list[Entry] = []

    def holds(*names, **flags):
        def add(make):
            found.append(Entry(framework, make, names, **flags))
            return make

        return add

    return found, holds


def handed(model, *args, **options) -> Handed:
    """A model with its inputs and options."""
    return Handed(model, args, options)


def normal(seed, *shape):
    """Standard normal numbers, made without a compiler."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def weights(seed, *shape):
    """Normal weights that keep the size of what they multiply."""
    return normal(seed, *shape) / np.float32(np.sqrt(shape[-2]))


def real():
    """The dtype of a real number: float64 where that is allowed."""
    return jnp.result_type(float)


def filled(shapes, seed=0):
    """Arrays of these shapes: normal weights, vectors between 0.5 and 1.5.

    Initialisers of modules compile a program for every array; this compiles none.
    Vectors are biases, scales and running variances: all of them may be positive.
    """
    draw = np.random.default_rng(seed)

    def fill(leaf):
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(seed)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.ones(leaf.shape, leaf.dtype)
        if len(leaf.shape) < 2:
            values = draw.uniform(0.5, 1.5, leaf.shape)
        else:
            fan_in = np.prod(leaf.shape[:-1])
            values = draw.normal(size=leaf.shape) / np.sqrt(fan_in)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree.map(fill, shapes)


def tokens(high, *shape):
    """Integers below ``high``, each of them used."""
    return jnp.asarray(np.arange(np.prod(shape)).reshape(shape) % high, jnp.int32)
