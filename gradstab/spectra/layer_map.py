"""The Jacobians of one layer of a network, by products or written out."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat
from gradstab.errors import UserValueError
from gradstab.network import Block, Context, ExampleBlock, LayerRun
from gradstab.program import reads
from gradstab.program.compiled import compiled
from gradstab.program.trace import real_size
from gradstab.spectra.colouring import Colouring, find_colouring
from gradstab.spectra.dense import basis_of
from gradstab.spectra.golub_kahan import two_way
from gradstab.spectra.linear_map import LinearMap, jacobian_map
from gradstab.spectra.one_way import matrix_map, may_be_one_way, why_one_way
from gradstab.spectra.placement import on_device
from gradstab.spectra.tangents import basis_rows, image_rows

# Of intermediate results, where Jacobians are written out to be multiplied with.
_MOST_BYTES = 2**28

# A Jacobian is put together from the images of colours if they are so much fewer.
_SAVING = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class LayerMap:
    """The Jacobians of a layer: one for each of its first examples, or a joint one.

    Attributes:
        owner: the function: of one example, or of the whole batch.
        context: the layer's context, in the whole batch.
        data: the data that enter, likewise.
        start: the first example.
        num: how many Jacobians; 1 if the examples are coupled.
        shape: (n_out, n_in) of each, in real numbers.
        coupled: whether the layer mixes examples, so that there is one joint Jacobian.
    """

    owner: Block | ExampleBlock
    context: Context
    data: tuple
    start: int
    num: int
    shape: tuple[int, int]
    coupled: bool

    @property
    def block(self) -> Block:
        """The program of the owner."""
        return self.owner.block if isinstance(self.owner, ExampleBlock) else self.owner

    @property
    def has_forward(self) -> bool:
        """Whether there are forward derivatives: a rule for backward only has none."""
        return not any(_compat.backward_only(eqn) for eqn in self.block.eqns)

    @property
    def dtype(self) -> np.dtype:
        """The coarsest real dtype of the data that enter and leave."""
        block = self.block
        limits = [
            jnp.finfo(_compat.dtype_of(v)) for v in (*block.in_vars, block.out_var)
        ]
        return max(limits, key=lambda limit: float(limit.eps)).dtype

    def parts(self, num_bytes: float, max_bytes: float):
        """The same Jacobians, as many at a time as fit into a number of bytes.

        Args:
            num_bytes: what one of them takes.
            max_bytes: what they may take together.

        Returns:
            An iterator of ``(map, skip)``. All have one size, to share their programs:
            the last goes back over examples of the one before, ``skip`` of which are
            known already. A function of the whole batch is not divided.
        """
        most = max(1, int(max_bytes // num_bytes))
        if not self.by_example or most >= self.num:
            yield self, 0
            return
        count = -(-self.num // -(-self.num // most))
        for first in range(0, self.num, count):
            begin = min(first, self.num - count)
            part = dataclasses.replace(self, start=self.start + begin, num=count)
            yield part, first - begin

    def apply(self, function: Callable[..., Any], *arguments):
        """``function(linear_map, *arguments)``, compiled.

        Args:
            function: takes a `LinearMap` and arrays; returns arrays that have the
                examples on their leading axis. Compiled once for every owner.
            *arguments: arrays.

        Returns:
            What the function returns, for the ``num`` examples.
        """
        if self.one_way:
            apply = jax.jit(lambda matrices, *a: function(matrix_map(matrices), *a))
            return apply(self._matrices, *arguments)
        results = self._run(_applied, function)(*arguments)
        return jax.tree.map(lambda array: array[: self.num], results)

    def dense(self, max_bytes: float, xp: Any = np) -> Any:
        """The Jacobians written out, ``(num, n_out, n_in)``, in the dtype of the data.

        Args:
            max_bytes: of intermediate results: it bounds the basis vectors at once.
            xp: `numpy` to bring them to the host, or `jax.numpy` to leave them where
                they are computed.
        """
        n_out, n_in = self.shape
        sparse = self.colouring
        if sparse is not None and sparse.num <= _SAVING * min(self.shape):
            return sparse.spread(self.coloured(max_bytes, xp), xp)
        forward = self.has_forward and n_in <= n_out
        size = n_in if forward else n_out
        chunk = max(1, min(size, int(max_bytes // self._scratch)))
        # What NumPy transposes is not copied.
        rows = xp.asarray(self._run(_rows, forward, chunk)())[:, : self.num]
        return rows.transpose(1, 2, 0) if forward else rows.swapaxes(0, 1)

    def coloured(self, max_bytes: float, xp: Any = np) -> Any:
        """The images of all colours of `colouring`, ``(num, n_out, colours)``.

        Each holds every entry of the Jacobians at most once, and together all that are
        not zero: the sum of their squares is the squared Frobenius norm.

        Args:
            max_bytes: of intermediate results: it bounds the tangents at once.
            xp: see `dense`.
        """
        colouring = self.colouring
        assert colouring is not None
        chunk = max(1, min(colouring.num, int(max_bytes // self._scratch)))
        colours = np.asarray(colouring.colours)
        images = self._run(_images, chunk)(colours, np.arange(colouring.num))
        return xp.asarray(images)[:, : self.num].transpose(1, 2, 0)

    def product(self, vectors: Any, backward: bool, max_bytes: float) -> Any:
        """The Jacobians, or their transposes, times some vectors for each example.

        Args:
            vectors: ``(num, n, m)``, m vectors of length n for each example, of NumPy
                or of JAX.
            backward: whether to multiply with the transposes.
            max_bytes: of intermediate results: it bounds the vectors at once.

        Returns:
            Array ``(num, other, m)`` in float64, rounded as the layer's dtype; of JAX,
            and in the dtype as it is, if the vectors are.
        """
        xp = jnp if isinstance(vectors, jax.Array) else np
        num, _, count = vectors.shape
        most = max(1, int(max_bytes // self._scratch))
        num_calls = -(-count // most)
        width = -(-count // num_calls)
        # All calls have one shape, that of one compiled program.
        padding = num_calls * width - count
        whole = self.coupled or self.by_example or self.one_way
        missing = 0 if whole else len(self.data[0]) - num
        vectors = xp.pad(vectors, ((0, missing), (0, 0), (0, padding)))
        function = _backward if backward else _forward
        images = [
            self.apply(function, piece)
            for piece in xp.split(vectors, num_calls, axis=2)
        ]
        if xp is np:
            images = [np.asarray(image, np.float64) for image in images]
        return xp.concatenate(images, axis=2)[:, :, :count]

    @functools.cached_property
    def one_way(self) -> str:
        """Why the layer has no products both ways; empty if it has.

        Then its Jacobians are written out, by rows, and multiplied with.
        """
        if not may_be_one_way(self.block):
            return ""
        num = self.num if self.coupled or self.by_example else len(self.data[0])

        def product(function: Callable[..., Any], size):
            vectors = jax.ShapeDtypeStruct((num, size, 1), jnp.float32)
            return self._run(_applied, function), vectors

        n_out, n_in = self.shape
        return why_one_way(
            self.block, product(_forward, n_in), product(_backward, n_out)
        )

    def refusal(self, max_bytes: float) -> str:
        """Why there are no products at all, if the layer is one way and too large."""
        size = math.prod(self.shape) * 8 * (1 if self.by_example else self.num)
        if not self.one_way or size <= max_bytes:
            return ""
        entries = " x ".join(map(str, self.shape))
        return f"no Jacobian: {self.one_way}, and {entries} entries are too many"

    @functools.cached_property
    def _matrices(self):
        stay = on_device("auto", self.num, self.shape)
        return jnp.asarray(self.dense(_MOST_BYTES, jnp if stay else np))

    @functools.cached_property
    def colouring(self) -> Colouring | None:
        """Which entries of a tangent can be set at once; None if that is not known."""
        if not self.by_example or not self.has_forward:
            return None
        return find_colouring(self.block)

    @property
    def by_example(self) -> bool:
        """Whether the owner is the function of one example."""
        return isinstance(self.owner, ExampleBlock)

    @property
    def _scratch(self):
        """Bytes of all intermediate results of one product, at most."""
        num_bytes = sum(
            reads.num_bytes(v) for eqn in self.block.eqns for v in eqn.outvars
        )
        return num_bytes * (self.num if self.by_example else 1)

    def _run(self, function: Callable[..., Any], *options):
        form = _Form(function, self.num, self.coupled, self.has_forward, options)
        program = compiled(self.owner, _called, form)
        return functools.partial(program, self.context, self.data, self.start)


def _forward(linear: LinearMap, vectors):
    return jax.vmap(two_way(linear)[0], in_axes=2, out_axes=2)(vectors)


def _backward(linear: LinearMap, vectors):
    return jax.vmap(two_way(linear)[1], in_axes=2, out_axes=2)(vectors)


class _Form(NamedTuple):
    """What a program is compiled for, beside its owner."""

    function: Any
    num: int
    coupled: bool
    forward: bool
    options: tuple


def _called(
    owner,
    form: _Form,
    context: Context,
    data: Sequence[jax.Array],
    start: Any,
    *arguments,
):
    if isinstance(owner, ExampleBlock):
        context, data = _examples(owner, form.num, context, data, start)
    return form.function(owner, form, context, data, *arguments)


def _examples(
    owner,
    num: int,
    context: Context,
    data: Sequence[jax.Array],
    start: Any,
):
    """Context and data of some examples, each on a leading axis of its own."""

    def cut(axis, array):
        if axis is None:
            return array
        return jax.lax.dynamic_slice_in_dim(array, start, num)

    return jax.tree.map(
        cut, owner.axes, owner.separate(context, data), is_leaf=lambda x: x is None
    )


def _applied(
    owner,
    form: _Form,
    context: Context,
    data: Sequence[jax.Array],
    *arguments,
):
    (function,) = form.options
    return function(_linear(owner, form, context, data), *arguments)


def _linear(
    owner,
    form: _Form,
    context: Context,
    data: Sequence[jax.Array],
) -> LinearMap:
    function = functools.partial(owner, context)
    if isinstance(owner, ExampleBlock):
        over = jax.vmap(lambda c, d: owner(c, *d), in_axes=owner.axes)
        function = lambda *data: over(context, data)  # noqa: E731
    return jacobian_map(function, data, coupled=form.coupled, forward=form.forward)


def _rows(
    owner,
    form: _Form,
    context: Context,
    data: Sequence[jax.Array],
):
    forward, chunk = form.options
    if isinstance(owner, ExampleBlock):
        return basis_rows(owner, context, data, forward=forward, chunk=chunk)
    return basis_of(_linear(owner, form, context, data), forward=forward, chunk=chunk)


def _images(
    owner,
    form: _Form,
    context: Context,
    data: Sequence[jax.Array],
    colours,
    indices,
):
    (chunk,) = form.options
    tangents = functools.partial(jnp.equal, colours)
    return image_rows(owner, context, data, tangents, indices, chunk=chunk)


def layer_map(
    layer: LayerRun, /, *, examples: int
) -> tuple[LayerMap, str] | tuple[None, str]:
    """The Jacobians of a layer of a network.

    Args:
        layer: a layer of a run of which it is known whether it mixes examples; see
            `find_examples`.
        examples: of how many examples, if it does not.

    Returns:
        ``(map, "")``, or ``(None, why not)``.

    Raises:
        ValueError: if nobody looked whether the layer mixes examples.
    """
    if layer.coupled is None:
        raise UserValueError(
            f"nobody looked whether {layer.name} mixes examples: give a layer of "
            "find_examples(run), or layer.of_batch()"
        )
    block, num, example = layer.function, layer.num_examples, layer.example
    if not block.in_vars:
        return None, "no Jacobian: its input is integers"
    if not all(map(real_size, (*block.in_vars, block.out_var))):
        return None, "no Jacobian: its data have no entries"
    if not layer.coupled and example is None and not layer.leads_with_examples:
        return None, "no Jacobian: examples are not on the leading axis"
    split = 1 if layer.coupled else num
    shape = (
        real_size(block.out_var) // split,
        sum(map(real_size, block.in_vars)) // split,
    )
    return LayerMap(
        owner=block if example is None else example,
        context=layer.context,
        data=layer.data,
        start=0,
        num=1 if layer.coupled else min(examples, num),
        shape=shape,
        coupled=layer.coupled,
    ), ""
