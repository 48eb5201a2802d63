"""Jacobians of convolutions from few products: inputs that share no output share one.

Entries that are further apart than a window never act on the same output. They get one
colour, and one tangent that is one in all of them yields all of their columns at once
(Curtis, Powell and Reid 1974, On the estimation of sparse Jacobian matrices). A 3 x 3
convolution of 16 channels has 144 colours at any size of the image.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from gradstab.network import Stencil, find_stencil
from gradstab.network.blocks import Block
from gradstab.program.trace import is_complex


class Colouring(NamedTuple):
    """Colours of the entries that enter a block.

    Attributes:
        stencil: which entries act on which.
        colours: (n_in,) the colour of each; no two of one colour act on one output.
        num: how many colours there are.
    """

    stencil: Stencil
    colours: np.ndarray
    num: int

    def spread(self, images: Any, xp: Any = np, /) -> Any:
        """Jacobians from the images of their colours.

        Args:
            images: ``(num, n_out, colours)``; what the sum of all basis vectors of one
                colour is mapped to.
            xp: `numpy`, or `jax.numpy` if the images are of JAX.

        Returns:
            Array ``(num, n_out, n_in)`` in the same dtype.
        """
        columns = images[:, :, self.colours]
        return xp.where(self._acts()[None], columns, images.dtype.type(0))

    def _acts(self):
        """(n_out, n_in): whether an entry can act on an output."""
        num_out = len(self.stencil.out_shape)
        shape = (*self.stencil.out_shape, *self.stencil.in_shape)
        acts = np.ones(shape, bool)
        for to, reach in enumerate(self.stencil.reaches):
            if reach is not None:
                first = np.arange(shape[to])[:, None] * reach.stride
                entry = np.arange(self.stencil.in_shape[reach.axis])[None]
                near = (first + reach.low <= entry) & (entry <= first + reach.high)
                axes = tuple(
                    i for i in range(len(shape)) if i not in (to, num_out + reach.axis)
                )
                acts &= np.expand_dims(near, axes)
        return acts.reshape(math.prod(self.stencil.out_shape), -1)


def _of_real_numbers(stencil, block: Block):
    """The stencil between the real views of complex arrays: with a last axis of two."""
    in_shape, out_shape, reaches = stencil
    if is_complex(block.in_vars[0]):
        in_shape = (*in_shape, 2)
    if is_complex(block.out_var):
        out_shape, reaches = (*out_shape, 2), (*reaches, None)
    return Stencil(in_shape, out_shape, reaches)


def find_colouring(block: Block, /) -> Colouring | None:
    """The colours of the entries that enter a block; None if all act on everything.

    Args:
        block: a `Block`.
    """
    stencil = find_stencil(block)
    if stencil is None:
        return None
    stencil = _of_real_numbers(stencil, block)
    periods = list(stencil.in_shape)
    for reach in stencil.reaches:
        if reach is not None:
            width = max(reach.high - reach.low + 1, 1)
            periods[reach.axis] = min(periods[reach.axis], width)
    grid = np.indices(stencil.in_shape).reshape(len(periods), -1)
    places = [position % period for position, period in zip(grid, periods, strict=True)]
    colours = np.ravel_multi_index(places, periods)
    return Colouring(stencil, colours, math.prod(periods))
