"""Products of data with parameters, found in a program and in its scans over layers."""

import collections
import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat
from gradstab.network import flow as flows
from gradstab.network import naming
from gradstab.program import primitives
from gradstab.program.trace import Program, flatten_body

Rows = TypeVar("Rows", jax.Array, np.ndarray)


@dataclasses.dataclass(frozen=True, eq=False)
class Product:
    """A contraction of data with one parameter leaf; in a scan, one per layer.

    Attributes:
        eqn: the contraction.
        leaf: which parameter leaf.
        rows: its rows in the plan: one, or one for each layer of the scan.
        stacked: whether it is in a scan.
    """

    eqn: _compat.JaxprEqn
    leaf: int
    rows: slice
    stacked: bool

    def part_of(self, array: Rows) -> Rows:
        """Its rows of an array with a row per product: a scalar outside a scan."""
        return array[self.rows] if self.stacked else array[self.rows.start]


@dataclasses.dataclass(frozen=True, eq=False)
class LayerScan:
    """A scan over layers: its equation, its flat body and the products in there."""

    eqn: _compat.JaxprEqn
    parts: _compat.ScanParts
    body: _compat.ClosedJaxpr
    products: tuple[Product, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """All products of a program that can be scaled.

    Attributes:
        products: outside and inside of scans.
        scans: the scans over layers.
        names: per row the path of the weights, with the layer in a stack.
        order: the rows in depth order.
        notes: pairs (path, reason) for weights that cannot be scaled.
    """

    products: tuple[Product, ...]
    scans: tuple[LayerScan, ...]
    names: tuple[str, ...]
    order: list[int]
    notes: tuple[tuple[str, str], ...]


def find_products(program: Program, /) -> Plan:
    """Find the products of data with parameters.

    Args:
        program: from `network.program.trace_program`.

    Returns:
        The plan. Cost: linear in the number of equations.
    """
    search = _Search(program)
    flow = flows.trace_flow(
        program.eqns,
        data=[v for v in program.input_vars if _is_floating(v)],
        dependent=[v for v in program.input_vars if not _is_floating(v)],
        owners={v: frozenset({i}) for i, v in enumerate(program.param_vars)},
    )
    for eqn in program.eqns:
        parts = _compat.scan_parts(eqn)
        if parts is not None and _contracts_data(eqn, flow):
            search.enter(eqn, parts, flow)
        else:
            search.visit(eqn, flow)
    return search.plan()


@dataclasses.dataclass(frozen=True, eq=False)
class _Candidate:
    """A contraction with parameters, before their uses are all known."""

    eqn: _compat.JaxprEqn
    leaves: frozenset
    scan: int | None
    reason: str


class _Search:
    """Candidates so far, and how often each parameter leaf meets the data."""

    def __init__(self, program: Program):
        self.paths = program.param_names
        self.vars = program.param_vars
        self.leaf_of = {v: i for i, v in enumerate(program.param_vars)}
        self.candidates: list[_Candidate] = []
        self.uses: collections.Counter = collections.Counter()
        self.scans: list[tuple] = []

    def visit(
        self,
        eqn: _compat.JaxprEqn,
        flow: flows.Flow,
        scan: int | None = None,
        sliced: frozenset = frozenset(),
    ) -> None:
        """Note what the equation does with data and parameters."""
        if not _meets_data(eqn, flow):
            return
        leaves = frozenset().union(*(flow.params_of(v) for v in eqn.invars))
        self.uses.update(leaves)
        if leaves and _compat.contains(eqn, flows.CONTRACTIONS):
            reason = ""
            if not primitives.is_a(eqn, primitives.Kind.CONTRACTION):
                reason = f"it is used inside a {primitives.name_of(eqn)}"
            elif scan is not None and not leaves <= sliced:
                reason = "it is used at every step of a scan"
            self.candidates.append(_Candidate(eqn, leaves, scan, reason))

    def enter(
        self, eqn: _compat.JaxprEqn, parts: _compat.ScanParts, flow: flows.Flow
    ) -> None:
        """Visit the body of a scan."""
        body = flatten_body(parts.body)
        xs = eqn.invars[parts.num_consts + parts.num_carry :]
        operands = [v for v in xs if not isinstance(v, _compat.Literal)]
        sliced = frozenset(self.leaf_of[v] for v in operands if v in self.leaf_of)
        inside = _flow_inside(eqn, parts, body, flow)
        for inner in body.jaxpr.eqns:
            self.visit(inner, inside, len(self.scans), sliced)
        self.scans.append((eqn, parts, body, sliced))

    def plan(self) -> Plan:
        """Products of the candidates that can be scaled, notes for the others."""
        products, names, notes, per_scan = [], [], {}, collections.defaultdict(list)
        for candidate in self.candidates:
            reason = candidate.reason or self._why_not(candidate.leaves)
            if reason:
                notes |= {self.paths[i]: reason for i in sorted(candidate.leaves)}
                continue
            (leaf,) = candidate.leaves
            rows = self._row_names(leaf, candidate.scan)
            place = slice(len(names), len(names) + len(rows))
            stacked = candidate.scan is not None
            product = Product(candidate.eqn, leaf, place, stacked)
            products.append(product)
            names += rows
            if stacked:
                per_scan[candidate.scan].append(product)
        scans = []
        for number, inner in per_scan.items():
            eqn, parts, body, _ = self.scans[number]
            scans.append(LayerScan(eqn, parts, body, tuple(inner)))
        return Plan(
            tuple(products),
            tuple(scans),
            tuple(names),
            _depth_order(products, scans),
            tuple(notes.items()),
        )

    def _why_not(self, leaves: frozenset) -> str:
        if len(leaves) > 1:
            together = ", ".join(self.paths[leaf] for leaf in sorted(leaves))
            return f"the weights are computed from several parameters: {together}"
        (leaf,) = leaves
        if not _is_floating(self.vars[leaf]):
            return f"its dtype is {self.vars[leaf].aval.dtype}"
        return f"it has {self.uses[leaf]} uses" if self.uses[leaf] > 1 else ""

    def _row_names(self, leaf: Any, scan: int | None) -> list[str]:
        path = self.paths[leaf]
        if scan is None:
            return [path]
        _, parts, _, sliced = self.scans[scan]
        stack = [self.paths[i] for i in sorted(sliced)]
        return [naming.layer_name(path, step, stack) for step in range(parts.length)]


def _flow_inside(
    eqn: _compat.JaxprEqn,
    parts: _compat.ScanParts,
    body: _compat.ClosedJaxpr,
    flow: flows.Flow,
) -> flows.Flow:
    """The flow in a scan's body; what becomes data in one step is data in the next."""
    outer = dict(zip(body.jaxpr.invars, eqn.invars, strict=True))
    carried = body.jaxpr.invars[parts.num_consts : parts.num_consts + parts.num_carry]
    results = body.jaxpr.outvars[: parts.num_carry]
    data = {v for v, o in outer.items() if flow.is_data(o)}
    while True:
        inside = flows.trace_flow(
            body.jaxpr.eqns,
            data=data,
            dependent=[v for v, o in outer.items() if flow.is_dependent(o)],
            owners={v: flow.params_of(o) for v, o in outer.items() if v not in data},
        )
        pairs = zip(carried, results, strict=True)
        grown = data | {v for v, result in pairs if inside.is_data(result)}
        if grown == data:
            return inside
        data = grown


def _depth_order(products: list[Product], scans: list[LayerScan]) -> list[int]:
    """All rows in depth order: those of a scan step by step."""
    scan_of = {product: scan for scan in scans for product in scan.products}
    order, entered = [], set()
    for product in products:
        scan = scan_of.get(product)
        if scan is None:
            order.append(product.rows.start)
        elif scan not in entered:
            entered.add(scan)
            steps = range(scan.parts.length)
            for step in reversed(steps) if scan.parts.reverse else steps:
                order += [inner.rows.start + step for inner in scan.products]
    return order


def _contracts_data(eqn: _compat.JaxprEqn, flow: flows.Flow) -> bool:
    return _meets_data(eqn, flow) and _compat.contains(eqn, flows.CONTRACTIONS)


def _meets_data(eqn: _compat.JaxprEqn, flow: flows.Flow) -> bool:
    return any(flow.is_data(v) or flow.is_dependent(v) for v in eqn.invars)


def _is_floating(variable) -> bool:
    return jnp.issubdtype(variable.aval.dtype, jnp.inexact)
