"""Statistics of one step: what went forward and backward through every layer."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from gradstab import _console
from gradstab.errors import UserValueError
from gradstab.records import record, static
from gradstab.watch.locating import (
    NonFinite,
    Spike,
    first_nonfinite,
    first_spike,
    is_one_step,
)
from gradstab.watch.measures import BINS, ENTRIES, NUM_BINS, SUM, ZEROS, shares_outside
from gradstab.watch.norms import norm_of_norms, norms_by_row
from gradstab.watch.table import show


@record
class Statistics:
    r"""What one step measured of every layer, in depth order; rides in `jax.lax.scan`.

    All arrays but ``value`` have one entry for each name. The last name stands for the
    parameters that belong to no layer that is watched. Under `jax.vmap` every array has
    a leading axis; stacked by a scan likewise.

    ============================  =====================================================
    name                          formula, and how to read it
    ============================  =====================================================
    ``forward_rms``               :math:`\sqrt{\operatorname{mean} h^2}` of the data
                                  :math:`h` that leave the layer. Of order one, and
                                  much the same from layer to layer.
    ``backward_rms``              the same of :math:`\partial L / \partial h`. Its size
                                  depends on the loss and the batch; that it shrinks or
                                  grows by the same factor at every layer does not.
    ``forward_nonfinite``         in how many iterations an entry is not finite: none.
    ``gradient_norm``             :math:`\|g\|` of the layer's parameters.
    ``param_norm``                :math:`\|w\|`.
    ``share``                     :math:`\|g\|^2 / \sum \|g\|^2`. One layer with almost
                                  all of it drives the global norm and its clipping.
    ``gradient_cosine``           :math:`g \cdot w / (\|g\| \|w\|)`, the radial part: 0
                                  for weights whose scale the loss does not see, such
                                  as those in front of a normalisation.
    ``gain``                      :math:`\|\partial L / \partial h_{l-1}\| /
                                  \|\partial L / \partial h_l\|`: by how much the
                                  layer stretches what goes back through it. Near one.
    ``update_ratio``              :math:`\|u\| / \|w\|` of the update; some
                                  :math:`10^{-3}` for Adam. NaN before `with_updates`.
    ============================  =====================================================

    Attributes:
        value: the loss.
        forward_rms: root mean square of the data that leave the layer; of what several
            iterations of a loop give over all of them. NaN where nothing is watched.
        backward_rms: that of the gradient with respect to them. NaN where no gradient
            came by: the layer has no part in the loss.
        forward_nonfinite: arrays of the data, one for each iteration, that hold NaN or
            an infinity, or numbers whose squares are infinite: 1.8e19 in float32.
        backward_nonfinite: the same of the gradient.
        forward_entries: entries of the data that were measured.
        backward_entries: entries of the gradient; zero if none came by.
        forward_step: in a loop over time the first iteration with such an array, in
            their order; -1 for none, and outside of loops.
        backward_step: the same for the gradient, which comes from the last iteration.
        param_norm: norm of the layer's parameters.
        gradient_norm: norm of their gradient.
        gradient_finite: whether the gradient of the parameters that are only the
            layer's is finite.
        gradient_cosine: cosine of the angle between gradient and parameters; NaN where
            one of them is zero.
        update_norm: norm of the layer's update; NaN before `with_updates`.
        measures: of level ``"full"`` all that was measured, ``(..., names, 2,
            measures)``, forward and backward; None of level ``"light"``.
        details: by layer a `Detail`, of what ``per=`` asks for; else None.
        names: the layers, and one more.
        owners: for each parameter leaf the row that it belongs to, or those of its
            slices.
        sites: for each name in which loops it is, and where in their order.
        level: ``"light"`` or ``"full"``.
    """

    value: jax.Array
    forward_rms: jax.Array
    backward_rms: jax.Array
    forward_nonfinite: jax.Array
    backward_nonfinite: jax.Array
    forward_entries: jax.Array
    backward_entries: jax.Array
    forward_step: jax.Array
    backward_step: jax.Array
    param_norm: jax.Array
    gradient_norm: jax.Array
    gradient_finite: jax.Array
    gradient_cosine: jax.Array
    update_norm: jax.Array
    measures: Any = None
    details: Any = None
    names: tuple[str, ...] = static(default=())
    owners: tuple = static(default=())
    sites: tuple = static(default=())
    level: str = static(default="light")

    @property
    def global_norm(self) -> jax.Array:
        """The norm of the whole gradient."""
        return norm_of_norms(self.gradient_norm)

    @property
    def share(self) -> jax.Array:
        """The share of every layer in the square of the global norm."""
        return jnp.square(self.gradient_norm / self.global_norm[..., None])

    @property
    def radial_norm(self) -> jax.Array:
        """The norm of the part of the gradient along the parameters."""
        return self.gradient_norm * jnp.abs(self.gradient_cosine)

    @property
    def gain(self) -> jax.Array:
        """By how much the norm of the gradient grows on its way back through a layer.

        NaN for the first layer, before which nothing is watched.
        """
        norms = self.backward_rms * jnp.sqrt(self.backward_entries)
        behind = jnp.full_like(norms[..., :1], jnp.nan)
        return jnp.concatenate([behind, norms[..., :-1] / norms[..., 1:]], axis=-1)

    @property
    def update_ratio(self) -> jax.Array:
        """The norm of the update over that of the parameters."""
        return self.update_norm / self.param_norm

    @property
    def mean(self) -> jax.Array:
        """Mean of the data and of the gradient, ``(..., names, 2)``."""
        full = self._full("mean")
        return full[..., SUM] / full[..., ENTRIES]

    @property
    def zero_fraction(self) -> jax.Array:
        """Share of the entries that are exactly zero, ``(..., names, 2)``."""
        full = self._full("zero_fraction")
        return full[..., ZEROS] / full[..., ENTRIES]

    @property
    def exponents(self) -> jax.Array:
        """How many entries have each exponent, ``(..., names, 2, 256)``.

        Entry i counts magnitudes from 2^(i - 127) to twice that; the first zeros and
        what is less than 2^-126, the last NaN and infinities.
        """
        return self._full("exponents")[..., BINS]

    def extremes(self) -> tuple[jax.Array, jax.Array]:
        """Powers of two that enclose all magnitudes, each ``(..., names, 2)``.

        Zeros and what is not finite are left out; NaN where nothing else is.
        """
        counted = self.exponents[..., 1 : NUM_BINS - 1] > 0
        some = jnp.any(counted, axis=-1)
        powers = 2.0 ** jnp.arange(1.0 - 127, 128.0)
        first = powers[jnp.argmax(counted, axis=-1)]
        last = powers[NUM_BINS - 3 - jnp.argmax(counted[..., ::-1], axis=-1)]
        return jnp.where(some, first, jnp.nan), jnp.where(some, 2 * last, jnp.nan)

    def shares_outside(self, dtype) -> tuple[jax.Array, jax.Array]:
        """A forecast: the shares of entries below and above the range of a dtype.

        Args:
            dtype: float16, bfloat16, float8_e4m3fn or float8_e5m2.

        Returns:
            ``(below, above)``, each ``(..., names, 2)`` for data and gradient: of the
            entries that are finite and not zero, those less than the smallest normal
            number of the dtype, and those beyond its largest.
        """
        return shares_outside(self._full("shares_outside"), dtype)

    def _full(self, what):
        if self.measures is None:
            raise UserValueError(f"{what} needs value_and_grad(..., level='full')")
        return self.measures

    def with_updates(self, updates, params, /) -> "Statistics":
        """The statistics with the norms of the updates of this step.

        Args:
            updates: what is added to the parameters, in their structure.
            params: the parameters that they are added to.

        Raises:
            ValueError: the updates have another structure.
        """
        leaves, tree = jax.tree.flatten(updates)
        same = tree == jax.tree.structure(params)
        if not same or len(leaves) != len(self.owners):
            raise UserValueError(
                "updates must have the structure of what the loss is differentiated "
                f"with respect to, {len(self.owners)} arrays; got {tree}"
            )
        rows = self.owners, len(self.names)
        norms = (
            norms_by_row(*rows, leaves),
            norms_by_row(*rows, jax.tree.leaves(params)),
        )
        return dataclasses.replace(self, update_norm=norms[0], param_norm=norms[1])

    def nonfinite(self) -> NonFinite | None:
        """The first place, in the order of the computation, that is not finite.

        Looked for in this order: parameters, data that leave a layer, the loss; then
        from the loss back to the input.

        Raises:
            ValueError: inside of jit, and of several steps at once.
        """
        return first_nonfinite(self)

    def spike(self, reference: "Statistics", /) -> Spike | None:
        """The first place, in the order of the computation, that jumps.

        What is looked at: the sizes of data that leave a layer, the loss, then the
        sizes of gradients from the loss back to the input, and of every layer's own
        gradient. A jump is what exceeds the median of the reference by more than six
        robust standard deviations of its logarithm, and by more than a factor of 4.
        With the 100 steps before each as the reference, some step jumped so in 4 of 80
        healthy runs of 400 steps (``python -m experiments.early_warnings``).

        Args:
            reference: of earlier steps of the same run, stacked on a leading axis;
                twenty or more for a deviation that means something.

        Raises:
            ValueError: inside of jit, of several steps at once, and with a reference
                of other layers, or of one step.
        """
        return first_spike(self, reference)

    def show(self, console=None, /) -> None:
        """Print a table to a rich console (standard output by default).

        Raises:
            ValueError: inside of jit, and of several steps at once.
        """
        show(self, console)

    def __str__(self):
        return _console.plain(self.show) if is_one_step(self) else repr(self)

    def _repr_html_(self):
        return _console.html(self.show) if is_one_step(self) else f"<p>{self!r}</p>"
