"""What flows through a flat program: data, parameters, and where it can be cut.

*Data* are floating variables with a derivative with respect to the inputs; a variable
that depends on the inputs without one (a mask, a token) is *dependent*. Everything else
is *context*: parameters and what is computed from them. Between two equations the live
data variables are those that a later equation still needs. Where exactly one is live,
every path from input to output passes through it: an articulation point of the
data-flow graph, and the only place where a network can be cut in two.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp

from gradstab import _compat
from gradstab.program import primitives

# Products with a parameter make a layer; a gather from a parameter is an embedding.
CONTRACTIONS = primitives.names(primitives.Kind.CONTRACTION)


@dataclasses.dataclass(frozen=True)
class Flow:
    """The part each variable plays.

    Attributes:
        data: variables with a derivative with respect to the inputs.
        dependent: variables that depend on the inputs without a derivative.
        owners: for a context variable, the parameter leaves it is computed from.
    """

    data: frozenset
    dependent: frozenset
    owners: dict

    def params_of(self, atom: _compat.Var | _compat.Literal) -> frozenset:
        """The parameter leaves behind a variable that is not data."""
        if isinstance(atom, _compat.Literal):
            return frozenset()
        return self.owners.get(atom, frozenset())

    def is_data(self, atom: _compat.Var | _compat.Literal) -> bool:
        """Whether the atom is a data variable."""
        return not isinstance(atom, _compat.Literal) and atom in self.data

    def is_dependent(self, atom: _compat.Var | _compat.Literal) -> bool:
        """Whether the atom depends on the inputs without a derivative."""
        return not isinstance(atom, _compat.Literal) and atom in self.dependent


@dataclasses.dataclass(frozen=True)
class Atom:
    """The run of data equations between two neighbouring articulation points.

    Attributes:
        eqns: the equations whose results are data, in order.
        in_vars: the live data before the run: one variable, or all floating inputs.
        out_var: the one live variable after it.
    """

    eqns: tuple
    in_vars: tuple
    out_var: _compat.Var


def trace_flow(
    eqns: Sequence[_compat.JaxprEqn], /, *, data=(), dependent=(), owners=None
) -> Flow:
    """Follow data, dependence and parameters through the equations.

    Args:
        eqns: equations of a flat program, in order.
        data: the program's inputs that are data from the start.
        dependent: those that are dependent (integer inputs).
        owners: parameter leaves behind each context input.

    Returns:
        The flow. Cost: linear in the number of equations.
    """
    data, dependent, owners = set(data), set(dependent), dict(owners or {})
    for eqn in eqns:
        atoms = [v for v in eqn.invars if not isinstance(v, _compat.Literal)]
        leaves = frozenset().union(*(owners.get(v, frozenset()) for v in atoms))
        from_data = any(v in data for v in atoms)
        from_dependent = any(v in dependent for v in atoms)
        for out in eqn.outvars:
            floating = jnp.issubdtype(_compat.dtype_of(out), jnp.inexact)
            # An integer that picks rows of a parameter starts the data flow.
            if floating and (from_data or (from_dependent and leaves)):
                data.add(out)
            elif from_data or from_dependent:
                dependent.add(out)
            elif leaves:
                owners[out] = leaves
    return Flow(frozenset(data), frozenset(dependent), owners)


def needed_equations(eqns: Sequence[_compat.JaxprEqn], out_var, flow: Flow, /) -> list:
    """The equations through which data reach the output, in order."""
    needed, kept = {out_var}, []
    for eqn in reversed(eqns):
        if any(v in needed for v in eqn.outvars):
            kept.append(eqn)
            needed.update(v for v in eqn.invars if flow.is_data(v))
    return kept[::-1]


def atoms(
    eqns: Sequence[_compat.JaxprEqn], flow: Flow, in_vars, out_var: _compat.Var, /
) -> list[Atom]:
    """Cut the way from the inputs to the output at its articulation points.

    Args:
        eqns: equations of a flat program, in order.
        flow: from `trace_flow`.
        in_vars: the floating inputs.
        out_var: the output.

    Returns:
        Atoms in depth order; the out variable of each is the in variable of the next.
        None if the output is no data. Cost: linear in the number of equations.
    """
    if not flow.is_data(out_var):
        return []
    eqns = needed_equations(eqns, out_var, flow)
    last_use = {out_var: len(eqns)}
    for i, eqn in enumerate(eqns):
        last_use.update({v: i for v in eqn.invars if flow.is_data(v) and v != out_var})
    live = {v for v in in_vars if v in last_use}
    found, run, start = [], [], tuple(v for v in in_vars if v in last_use)
    for i, eqn in enumerate(eqns):
        run.append(eqn)
        live |= {v for v in eqn.outvars if flow.is_data(v) and v in last_use}
        live = {v for v in live if last_use[v] > i}
        if len(live) == 1:
            (cut,) = live
            found.append(Atom(tuple(run), start, cut))
            run, start = [], (cut,)
    return found


def contracts_parameter(eqn: _compat.JaxprEqn, flow: Flow, /) -> frozenset:
    """Parameter leaves that the equation multiplies the data with; empty if none.

    An opaque equation (a recurrent scan, a condition) with a contraction inside counts
    with every parameter that enters it.
    """
    if not _compat.contains(eqn, CONTRACTIONS) and not _picks_rows(eqn, flow):
        return frozenset()
    return frozenset().union(*(flow.params_of(v) for v in eqn.invars))


def _picks_rows(eqn: _compat.JaxprEqn, flow: Flow):
    return (
        primitives.is_named(eqn, "gather")
        and bool(flow.params_of(eqn.invars[0]))
        and any(flow.is_dependent(v) for v in eqn.invars[1:])
    )
