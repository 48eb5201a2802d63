"""What an analysis will cost, before it starts: counted on the programs it will run.

Of every layer the equations of its block are counted, and each part of the analysis is
so and so many evaluations of them: a gradient is three, a product with a Jacobian one
and a half. What that takes is measured on the machine at hand.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gradstab import _compat, _memory, _tree
from gradstab.analysis import machine
from gradstab.analysis.selection import Limits
from gradstab.analysis.subject import Subject
from gradstab.network.blocks import Block
from gradstab.network.places import Place
from gradstab.network.recurrence import RecurrentScan
from gradstab.network.replay import Network
from gradstab.program import primitives, reads
from gradstab.program.compiled import work_for
from gradstab.program.work import Work, num_equations, work_of
from gradstab.spectra import on_device

# Seconds to trace, lower and compile a program, and each of its equations. Measured on
# the networks of `experiments.benchmarks.large`.
_PROGRAM = 0.5
_EQUATION = 0.015

# Evaluations of a layer's function that a gradient takes, and what goes with the
# signals: once more forward, and once for its activations.
_SIGNALS = 5
_AGREEMENT = 6
_PRODUCT = 1.5
_GRADIENT = 3

# Steps of a bidiagonalisation that are usual, those there is room for, and probes.
_STEPS, _ROOM, _PROBES, _FEW = 64, 128, 64, 8
_SWEEPS = 4

# Fused, an equation neither reads nor writes most of its operands.
_FUSED = 0.4

# Bytes that compilers and libraries take, beside all arrays.
_COMPILERS = 2**28


class Cost(NamedTuple):
    """An estimate: of time good to a factor of three, of memory to one of 1.5.

    Attributes:
        seconds: of the whole analysis.
        num_bytes: resident memory of the process at its peak.
        parts: ``(what, seconds)`` of every part.
    """

    seconds: float
    num_bytes: float
    parts: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        return f"about {self.seconds:.2g} s, {self.num_bytes / 2**30:.2g} GiB"


def estimate_cost(
    subject: Subject,
    wanted: Sequence[bool],
    limits: Limits,
    /,
    *,
    loss: bool = True,
    redraws: int | None = 0,
) -> Cost:
    r"""Time and memory of an analysis.

    A Jacobian of sides :math:`p \le q` that is written out takes p products and about
    :math:`2 p^2 q + 4 p^3 / 3` operations for its Gram matrix and the eigenvalues of
    that; by products some hundred of them. Memory is what the process has now, the
    parameters, twice, the data and the gradients between all layers, the intermediate
    results of one of them, and the Jacobians at work, which ``max_bytes`` bounds.

    Args:
        subject: from `find_subject`.
        wanted: for every layer whether its Jacobian is computed.
        limits: of the analysis.
        loss: whether there is one.
        redraws: how often theory draws each layer again; None without theory.

    Returns:
        The estimate. Cost: some milliseconds, and a quarter of a second once per
        process to measure the machine.
    """
    counts = [_Counted(subject.network, place) for place in subject.network.layers]
    parts = _Parts(subject, limits)
    for layer, want in zip(counts, wanted, strict=True):
        parts.add_layer(layer, want, loss, redraws)
    if all(wanted):
        parts.add_exponents(counts)
    parts.add_programs(wanted, loss)
    seconds = sum(parts.seconds.values())
    num_bytes = _signals_bytes(subject, counts)
    if any(wanted):
        num_bytes = max(num_bytes, _jacobian_bytes(subject, counts, wanted, limits))
    return Cost(
        seconds,
        _memory.memory_in_use() + _COMPILERS + num_bytes,
        tuple(parts.seconds.items()),
    )


def too_large(subject: Subject, limits: Limits, /) -> list[bool]:
    """The layers whose Jacobian for one example is far above ``max_bytes``."""
    layers = [_Counted(subject.network, place) for place in subject.network.layers]
    return [_at_work(subject, x, limits, 1) > 4 * limits.max_bytes for x in layers]


class _Counted:
    """One layer: its work for the whole batch, and the sides of its Jacobian."""

    def __init__(self, network: Network, place: Place) -> None:
        block = network.blocks[place.block]
        self.block, self.place = block, place
        self.work = work_for(block)
        self.recurrences = network.recurrences[place.block]
        self.coupled = _couples(block, network.num_examples)
        self.num = 1 if self.coupled else network.num_examples
        self.rows = math.prod(place.out_shape) / self.num
        self.columns = sum(map(math.prod, place.in_shapes)) / self.num

    @property
    def sides(self) -> list[float]:
        return sorted((self.rows, self.columns))

    def by_products(self, limits: Limits) -> bool:
        """Whether its Jacobian is known by products only."""
        small, _ = self.sides
        few = limits.top_k is not None and small > max(8 * limits.top_k, 2 * _PROBES)
        return small > limits.max_dense or few


class _Parts:
    """Seconds by part of the analysis."""

    def __init__(self, subject: Subject, limits: Limits) -> None:
        self.subject, self.limits = subject, limits
        self.speed = machine.speed(subject.wide)
        size = machine.SIDE, machine.SIDE
        self.device = on_device(limits.spectra_on, limits.examples, size)
        self.seconds: dict[str, float] = {}

    def add(self, name: str, work: Work, operations: float = 0.0) -> None:
        work = work._replace(num_bytes=_FUSED * work.num_bytes)
        seconds = self.speed.seconds(work)
        seconds += operations / machine.decompositions(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def add_layer(
        self, layer: _Counted, want: bool, loss: bool, redraws: int | None
    ) -> None:
        examples = min(self.limits.examples, layer.num)
        self.add("signals", _SIGNALS * layer.work)
        if redraws is not None:
            self.add("theory", _GRADIENT * (redraws + 2) * layer.work)
        for scan in layer.recurrences:
            self._add_recurrence(scan, examples, want)
        if not want:
            return
        self.add("coupling", _AGREEMENT * layer.work)
        one = layer.work * (1 / layer.num)
        if loss:
            self.add("cosines", _GRADIENT * examples * one)
        if not min(layer.sides):
            return
        if layer.by_products(self.limits):
            self._add_products(layer, one, examples)
        else:
            small, large = layer.sides
            operations = examples * (2 * small**2 * large + 4 / 3 * small**3)
            self.add("jacobians", _PRODUCT * examples * small * one, operations)

    def _add_products(self, layer: _Counted, one: Work, examples: int) -> None:
        itemsize = 8 if self.subject.wide else 4
        small, large = layer.sides
        steps = min(_STEPS, small)
        # Every vector is made orthogonal to all that there is room for, in two passes.
        sums = 4 * min(_ROOM, small) * (small + large)
        basis = Work(num_bytes=itemsize * sums / _FUSED, flops=2 * sums)
        probes = Work(flops=4 * small * _PROBES**2 + 2 * large * _PROBES**2)
        each = one * _PRODUCT * (2 * steps + _PROBES) + basis * steps + probes
        self.add("jacobians", each * examples)

    def _add_recurrence(self, scan: RecurrentScan, examples: int, want: bool) -> None:
        state = [scan.eqn.outvars[i] for i in scan.state]
        size = sum(math.prod(_compat.shape_of(v)) for v in state)
        num = 1 if scan.joint else self.subject.network.num_examples
        size, steps = size / num, scan.parts.length
        step = work_of(scan.body.jaxpr.eqns) * (1 / num)
        columns, keep = _lyapunov(size, steps, min(examples, num))
        sweep = steps * keep * (size * columns**2) * 10
        self.add("along time", step * (2 * steps * keep * columns), _SWEEPS * sweep)
        if want and size <= self.limits.max_dense:
            shown = min(steps, 64) * min(examples, num)
            self.add("along time", step * (shown * size), shown * 10 / 3 * size**3)

    def add_exponents(self, layers: list[_Counted]) -> None:
        """The growth exponents of the whole product."""
        joint = any(layer.coupled for layer in layers)
        chain = [layer for layer in layers if layer.columns]
        if not chain:
            return
        num = self.subject.network.num_examples
        examples = 1 if joint else min(self.limits.examples, num)
        widths = [
            size * (num if joint and not layer.coupled else 1)
            for layer in chain
            for size in (layer.columns, layer.rows)
        ]
        top_k = self.limits.top_k
        if top_k is None and min(widths) > 256:
            top_k = 32
        columns = min(*widths, math.inf if top_k is None else 2 * top_k + 8)
        if 6 * 8 * max(widths) * columns > 4 * self.limits.max_bytes:
            return
        for layer, width in zip(chain, widths[1::2], strict=True):
            part = layer.work * (1 if joint else 1 / num)
            factor = _SWEEPS * examples
            work = _PRODUCT * factor * columns * part
            self.add("exponents", work, 10 * factor * width * columns**2)

    def add_programs(self, wanted: Sequence[bool], loss: bool) -> None:
        """The compilation of all programs."""
        network = self.subject.network
        blocks = {p.block for p, w in zip(network.layers, wanted, strict=True) if w}
        sizes = [num_equations(block.eqns) for block in network.blocks]
        # A gradient has three times the equations; then come the signals.
        equations = _SIGNALS * sum(sizes) + (_GRADIENT + 1) * len(network.layers)
        each = 1 + 2 * _GRADIENT + 4 * _PRODUCT + (_GRADIENT if loss else 0)
        equations += each * sum(sizes[number] for number in blocks)
        programs = 4 + 5 * len(blocks)
        seconds = _PROGRAM * programs + _EQUATION * equations
        self.seconds["compilation"] = seconds


def _lyapunov(size: float, steps: int, keep: int) -> tuple[float, float]:
    """Columns and examples of the Lyapunov exponents; see `lyapunov_exponents`."""
    if size <= 256:
        return size, max(min(keep, 2**31 // (steps * size**3)), 1)
    return (0 if size > 2**16 else 40), keep


def _signals_bytes(subject: Subject, layers: list[_Counted]) -> float:
    """What `propagate` holds beside the parameters; see there."""
    network = subject.network
    leaves = _tree.floating_leaves(subject.target.params)
    params = sum(np.size(leaf) * leaf.dtype.itemsize for leaf in leaves)
    # Of layers that share a block: data and gradients, kept and at work, and zeros for
    # the gradients to be added to; the intermediate results of one layer at a time.
    chained = [layer for layer in layers if layer.block.length > 1]
    alone = [layer for layer in layers if layer.block.length == 1]
    inside = max((_inside(layer.block) for layer in chained), default=0)
    inside += sum(_inside(layer.block) + _between(layer) for layer in alone)
    output = sum(map(reads.num_bytes, network.program.closed.jaxpr.outvars))
    # Gradients of the parameters, and a stack of those of layers in a chain. A loss
    # makes two arrays of the output.
    return 2 * params + 3.5 * sum(map(_between, chained)) + inside + 2 * output


def _jacobian_bytes(
    subject: Subject, layers: list[_Counted], wanted: Sequence[bool], limits: Limits
) -> float:
    """What is at work beside the signals that are kept."""
    leaves = _tree.floating_leaves(subject.target.params)
    params = sum(np.size(leaf) * leaf.dtype.itemsize for leaf in leaves)
    work = 0.0
    for layer, want in zip(layers, wanted, strict=True):
        if want:
            one = _at_work(subject, layer, limits, 1)
            every = one * min(limits.examples, layer.num)
            work = max(work, one, min(every, limits.max_bytes), _inside(layer.block))
    return params + 2 * sum(map(_between, layers)) + 3 * work


def _at_work(subject: Subject, layer: _Counted, limits: Limits, examples: int) -> float:
    """Bytes of Jacobians, or of the vectors that they are multiplied with."""
    itemsize = 8 if subject.wide else 4
    small, large = layer.sides
    if layer.by_products(limits):
        return examples * (_ROOM + _PROBES) * (small + large) * itemsize
    return examples * small * large * itemsize


def _between(layer: _Counted) -> int:
    """Bytes of the data that leave a layer."""
    out = layer.block.out_var
    return reads.num_bytes(out)


def _inside(block: Block) -> int:
    """Bytes of all intermediate results of a layer."""
    return sum(reads.num_bytes(v) for eqn in block.eqns for v in eqn.outvars)


def _couples(block: Block, num_examples: int) -> bool:
    """Whether a layer seems to mix examples: it reduces over their axis."""
    made = {v for eqn in block.eqns for v in eqn.outvars} | set(block.in_vars)
    for eqn in block.eqns:
        axes = eqn.params.get("axes", ())
        reduces = primitives.reduces(eqn) and 0 in tuple(axes)
        if reduces and num_examples > 1 and eqn.invars[0] in made:
            shape = _compat.shape_of(eqn.invars[0])
            if shape[0] == num_examples and len(shape) > 1:
                return True
    return False
