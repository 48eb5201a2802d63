"""Initialisation of residual branches without normalisation: Fixup and SkipInit.

Both start every block as the identity. Fixup sets the last layer of each branch to
`zeros` and shrinks the others (`fixup`). SkipInit (De and Smith 2020, Batch
normalization biases residual blocks towards the identity function) multiplies each
branch by a learned scalar that starts at zero and needs no more than `zeros` for it.
"""

from jax.nn.initializers import Initializer, constant, ones, zeros

from gradstab.errors import UserValueError
from gradstab.initializers.protocol import scaled

__all__ = ["constant", "fixup", "ones", "zeros"]


def fixup(base: Initializer, /, num_blocks: int, layers_per_branch: int) -> Initializer:
    r"""The weights inside a residual branch, but for its last layer, under Fixup.

    .. math:: W = L^{-1/(2m - 2)} W_{base},

    for :math:`L` residual blocks with :math:`m` layers in each branch, so that a step
    of gradient descent changes the network's output by an amount that does not grow
    with :math:`L`. It belongs to this recipe: the last layer of each branch and the
    classifier start at `zeros`; each branch has a scalar multiplier starting at one and
    scalar biases starting at zero.

    Args:
        base: initialiser of one layer, `he_normal()` in the paper.
        num_blocks: :math:`L`.
        layers_per_branch: :math:`m`, at least 2.

    Raises:
        ValueError: if there is no block, or a branch has a single layer: that one is
            the last and starts at zero.

    References:
        Zhang, Dauphin and Ma (2019), Fixup initialization, section 3, rules 1 to 3.

    >>> import jax
    >>> fixup(ones, num_blocks=16, layers_per_branch=2)(jax.random.key(0), (2,))
    Array([0.25, 0.25], dtype=float32)
    """
    if num_blocks < 1 or layers_per_branch < 2:
        raise UserValueError(
            "Fixup scales the layers before the last of each branch: it needs at least "
            f"one block and two layers a branch, given {num_blocks} and "
            f"{layers_per_branch}. A branch of one layer starts at `zeros`"
        )
    return scaled(base, num_blocks ** (-1 / (2 * layers_per_branch - 2)))
