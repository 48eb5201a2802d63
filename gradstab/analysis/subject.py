"""What is analysed: the network of a model, in the precision that the hardware has."""

import contextlib
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradstab import _tree
from gradstab.network import Network, find_layers
from gradstab.network.adapters import Target


class Subject(NamedTuple):
    """A model ready to be analysed.

    Attributes:
        network: its layers.
        target: its function and arrays, in the precision of the analysis.
        wide: whether that is float64.
    """

    network: Network
    target: Target
    wide: bool

    @property
    def arrays(self):
        """Parameters, state and inputs."""
        return self.target.params, self.target.state, self.target.inputs

    @property
    def dtypes(self) -> list[str]:
        """The dtypes of the parameters and of the data that pass between layers."""
        leaves = _tree.floating_leaves(self.target.params)
        found = {str(jnp.result_type(leaf)) for leaf in leaves}
        return sorted(found | set(self.network.dtypes))


def find_subject(target: Target, /, *, output, loss, precision) -> Subject:
    """Trace a model: in float64 where the hardware and the model can, or as it is.

    Args:
        target: from `as_target`.
        output: see `analyze`.
        loss: see `analyze`.
        precision: 'float64', 'own' or None.

    Raises:
        ValueError: for another precision, or a model that cannot be analysed.
        TypeError: if 'float64' is asked for and the model fixes its dtypes.
    """
    if precision not in (None, "float64", "own"):
        raise ValueError(f"precision must be 'float64', 'own' or None: {precision!r}")
    narrow = any(
        jnp.finfo(jnp.result_type(leaf)).bits < 32
        for leaf in _tree.floating_leaves(target.params)
    )
    wide = precision == "float64" or (
        precision is None and not narrow and jax.default_backend() != "tpu"
    )
    if wide:
        with arithmetic(True):
            raised = target._replace(**_arrays(target, _to_float64))
            try:
                return Subject(_find(raised, output, loss), raised, True)
            except (TypeError, jax.dtypes.TypePromotionError):
                # A model that fixes its dtypes inside cannot be widened from outside.
                if precision == "float64":
                    raise
    target = target._replace(**_arrays(target, jnp.asarray))
    with arithmetic(False):
        return Subject(_find(target, output, loss), target, False)


@contextlib.contextmanager
def arithmetic(wide):
    """The arithmetic of an analysis: full matrix products, and float64 if ``wide``."""
    # The user's own arithmetic may be in float64 as well: that is left as it is.
    in_float64 = jax.enable_x64(True) if wide else contextlib.nullcontext()
    with in_float64, jax.default_matmul_precision("highest"):
        yield


def _find(target, output, loss):
    network = find_layers(
        target.apply, target.params, target.inputs, state=target.state, output=output
    )
    if loss is not None:
        # A loss can fix dtypes as well: better known now than in the middle.
        jax.eval_shape(loss, network.program.output_shapes)
    return network


def _arrays(target, convert):
    # To look at a model is no use of its keys.
    fields = {name: getattr(target, name) for name in ("params", "state", "inputs")}
    return jax.tree.map(convert, _tree.fresh_keys(fields))


def _to_float64(leaf):
    return jnp.asarray(leaf, jnp.float64 if _tree.is_floating(leaf) else None)
