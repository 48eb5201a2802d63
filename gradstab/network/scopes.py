"""Names for parameters that a list holds: of the scopes in which they are used.

A list of parameters knows no modules, but the program may: frameworks trace every
module in a `jax.named_scope` of its name.
"""

from gradstab import _rules
from gradstab.network import flow as flows
from gradstab.program.trace import Program


def naming_paths(program: Program, flow: flows.Flow, /) -> tuple[str, ...]:
    """The paths by which layers are named: those of the parameters, as a rule.

    Where all parameters are numbered, as those of a list are, a number stands in the
    module in whose scope it is multiplied with the data, or used at all.

    Args:
        program: from `trace_program`.
        flow: its flow.

    Returns:
        One path for each parameter leaf.
    """
    names = program.param_names
    if not names or not all(name.isdigit() for name in names):
        return names
    found: dict = {}
    for eqn in program.eqns:
        scope = _rules.scope_of(eqn)
        if not scope:
            continue
        for leaf in flows.contracts_parameter(eqn, flow):
            found.setdefault(leaf, scope)
    if not found:
        return names
    for eqn in program.eqns:
        scope = _rules.scope_of(eqn)
        for leaf in frozenset().union(*(flow.params_of(v) for v in eqn.invars)):
            if scope:
                found.setdefault(leaf, scope)
    return tuple(
        f"{found[i]}.{name}" if i in found else name for i, name in enumerate(names)
    )
