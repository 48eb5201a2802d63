"""What a parametrisation of gradstab's own models needs. For use inside of `models`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from gradstab.errors import UserValueError

if TYPE_CHECKING:
    from gradstab.scaling import Parametrization

# Examples, and the side of an image: what a program is traced with, whatever it sums.
_FEW = 2


def base_options(given: dict[str, Any], reference: int, width: int, /) -> dict:
    """The options of a model at another width than that which they were given for.

    Args:
        given: the options, without the width.
        reference: the width for which they hold.
        width: that of the model.

    Raises:
        ValueError: for sizes that have no counterpart at the other width.
    """
    if "widths" in given:
        raise UserValueError(
            "a parametrization is of one width: give depth and width, not widths."
        )
    if given.get("aux_heads"):
        raise UserValueError(
            "a parametrization is of models with one output: leave out aux_heads."
        )
    own = given | {"width": width}
    if "mlp_width" in given:
        hidden, rest = divmod(given["mlp_width"] * width, reference)
        if rest:
            raise UserValueError(
                f"mlp_width={given['mlp_width']} at width {reference} is no whole "
                f"number at width {width}."
            )
        own["mlp_width"] = hidden
    return own


def inputs_like(in_shape: Sequence[int], /, *, tokens: bool) -> Any:
    """A batch of inputs, of zeros, that a model takes."""
    shape = (_FEW, *in_shape)
    return jnp.zeros(shape, jnp.int32 if tokens else jnp.float32)


def expect_complete(scaled: "Parametrization", /) -> None:
    """Raise if something of a model cannot be scaled from outside."""
    open_roles = [one for one in scaled.roles if one.role == "ambiguous"]
    said = [f"{one.name}: {one.note}" for one in open_roles]
    if scaled.scheme != "standard" and (said or scaled.notes):
        raise UserValueError(
            f"{scaled.scheme} does not know all of this model: "
            f"{'; '.join([*scaled.notes, *said])}"
        )
