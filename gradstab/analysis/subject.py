"""What is analysed: the network of a model, in the precision that the hardware has."""

import contextlib
import functools
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradstab import _compat, _tree
from gradstab._attempt import works
from gradstab.errors import UserTypeError, UserValueError, kind
from gradstab.network import Network, find_layers
from gradstab.network.adapters import Target, over_examples
from gradstab.network.losses import as_loss
from gradstab.program.compiling import quick_jit


class Subject(NamedTuple):
    """A model ready to be analysed.

    Attributes:
        network: its layers.
        target: its function and arrays, in the precision of the analysis.
        wide: whether that is float64.
        own_dtypes: the floating dtypes of the parameters as they were given.
        output: which output is differentiated, see `analyze`.
        boundaries: where layers are cut, see `find_layers`.
        narrow: why it is not in float64 though that was tried; empty otherwise.
    """

    network: Network
    target: Target
    wide: bool
    own_dtypes: tuple[str, ...]
    output: Any
    boundaries: Any
    narrow: str = ""

    @property
    def arrays(self) -> tuple[Any, Any, tuple]:
        """Parameters, state and inputs."""
        return self.target.params, self.target.state, self.target.inputs

    @property
    def dtypes(self) -> list[str]:
        """The dtypes of the parameters and of the data that pass between layers."""
        leaves = _tree.floating_leaves(self.target.params)
        found = {str(jnp.result_type(leaf)) for leaf in leaves}
        return sorted(found | set(self.network.dtypes))

    def single(self) -> Network | None:
        """The network for the first example alone; None if it cannot be traced so.

        Traced once for a network: whether it does what the network does is seen from
        the numbers of each analysis, see `gradstab.network.agree`.
        """
        return self.network.programs.get("single", self._single)

    def _single(self) -> Network | None:
        cut = functools.partial(_first_example, self.network.num_examples)
        # The model is only traced: shapes are enough.
        first = jax.eval_shape(
            lambda inputs: jax.tree.map(cut, inputs), self.target.inputs
        )
        target = self.target._replace(inputs=first)
        try:
            return _find(target, self.output, self.boundaries)
        except (TypeError, ValueError):  # a batch size is written into the model
            return None

    def cast(self, tree: Any) -> Any:
        """Arrays in the precision of the analysis."""
        return _cast(tree, self.wide)


def find_subject(
    target: Target,
    /,
    *,
    output: Callable[..., Any] | None,
    loss: Callable[..., Any] | None,
    precision: str | None,
    boundaries: Sequence[str] | None = None,
) -> Subject:
    """Trace a model: in float64 where the hardware and the model can, or as it is.

    Args:
        target: from `as_target`.
        output: see `analyze`.
        loss: see `analyze`.
        precision: 'float64', 'own' or None.
        boundaries: see `find_layers`.

    Raises:
        ValueError: for another precision, or a model that cannot be analysed.
        TypeError: if 'float64' is asked for and the model fixes its dtypes.
    """
    if precision not in (None, "float64", "own"):
        raise UserValueError(
            f"precision must be 'float64', 'own' or None: {precision!r}"
        )
    leaves = _tree.floating_leaves(target.params)
    own = tuple(sorted({str(jnp.result_type(leaf)) for leaf in leaves}))
    narrow = any(jnp.finfo(dtype).bits < 32 for dtype in own)
    wide = precision == "float64" or (
        precision is None and not narrow and jax.default_backend() != "tpu"
    )
    options, reason = (own, output, boundaries), ""
    if wide:
        try:
            return _traced(target, loss, True, options)
        except (TypeError, ValueError, jax.dtypes.TypePromotionError) as error:
            # A model that fixes its dtypes inside cannot be widened from outside. What
            # is wrong with it for another reason shows again below.
            if precision == "float64":
                raise
            reason = _first_line(error)
    return _traced(target, loss, False, options)._replace(narrow=reason)


def _first_line(error: Exception) -> str:
    """What an error says, in a line."""
    line = f"{kind(error)}: {next(iter(str(error).splitlines()), '')}"
    return textwrap.shorten(line, 120, placeholder=" ...")


def takes_one_example(target: Target, /) -> bool:
    """Whether a model that does not run for the batch runs for its examples."""
    return not _runs(target) and _runs(over_examples(target))


def time_for_examples(network: Network, /) -> str:
    """What to say if the leading axis of the inputs is that of time; else empty."""
    names = [
        place.name
        for place in network.layers
        if any(
            scan.joint and scan.parts.length == network.num_examples
            for scan in network.recurrences[place.block]
        )
    ]
    if not names:
        return ""
    return (
        f"{names[0]} runs along the leading axis of the inputs: time is taken for "
        "examples, and all of them are coupled. Give inputs with the examples first, "
        "such as lambda params, x: apply(params, jnp.swapaxes(x, 0, 1))"
    )


@contextlib.contextmanager
def arithmetic(wide: bool) -> Iterator[None]:
    """The arithmetic of an analysis: full matrix products, and float64 if ``wide``."""
    # The user's own arithmetic may be in float64 as well: that is left as it is.
    in_float64 = _compat.float64(wide)
    with in_float64, jax.default_matmul_precision("highest"):
        yield


def _traced(
    target: Target, loss: Callable[..., Any] | None, wide: bool, options: tuple
) -> Subject:
    with arithmetic(wide):
        arrays = (target.params, target.state, target.inputs)
        target = Target(target.apply, *_cast(arrays, wide))
        _, output, boundaries = options
        network = _find(target, output, boundaries)
        if loss is not None:
            # A loss can fix dtypes as well: better known now than in the middle.
            _look_at_loss(loss, network.program.output_shapes)
        return Subject(network, target, wide, *options)


def _runs(target: Target) -> bool:
    arrays = _tree.fresh_keys((target.params, target.state))
    inputs = _tree.fresh_keys(target.inputs)
    return works(jax.eval_shape, target.apply, *arrays, *inputs)


def _look_at_loss(loss: Callable[..., Any], shapes: Any) -> None:
    try:
        _, constants = as_loss(loss, shapes)
    except TypeError as error:
        raise UserTypeError(f"loss(output): {_first_line(error)}") from error
    if any(isinstance(value, Tracer) for value in constants):
        raise UserValueError(
            "the output holds what the model computed outside of its arrays (as some "
            "distributions do): let the model return arrays, and the loss take those"
        )


def _find(
    target: Target, output: Callable[..., Any] | None, boundaries: Sequence[str] | None
) -> Network:
    return find_layers(
        target.apply,
        target.params,
        target.inputs,
        state=target.state,
        output=output,
        boundaries=boundaries,
    )


def _cast(tree: Any, wide: bool) -> Any:
    # To look at a model is no use of its keys.
    leaves, structure = jax.tree.flatten(_tree.fresh_keys(tree))
    leaves = list(map(_as_array, leaves))
    where = [i for i, leaf in enumerate(leaves) if wide and _tree.is_floating(leaf)]
    narrow = [leaves[i] for i in where]
    on_host = all(map(_tree.is_on_host, narrow))
    wider = map(_to_float64_by_numpy, narrow) if on_host else _to_float64(narrow)
    for i, leaf in zip(where, wider, strict=True):
        leaves[i] = leaf
    return structure.unflatten(leaves)


def _as_array(leaf: Any) -> jax.Array:
    # To hand an array over compiles nothing, to convert it does.
    return jax.device_put(leaf) if isinstance(leaf, np.ndarray) else jnp.asarray(leaf)


def _to_float64_by_numpy(leaf: Any) -> jax.Array:
    dtype = _tree.widest(leaf.dtype, jnp.float64)
    return leaf if leaf.dtype == dtype else jax.device_put(np.asarray(leaf, dtype))


@quick_jit
def _to_float64(leaves: list) -> list[jax.Array]:
    """All arrays by one program: one for each would take longer to compile."""
    return [leaf.astype(_tree.widest(leaf.dtype, jnp.float64)) for leaf in leaves]


def _first_example(num: int, leaf: Any) -> jax.Array:
    shared = _tree.is_key(leaf) and leaf.shape[:1] != (num,)
    return leaf if shared else leaf[:1]
