"""When two programs are one: forms that do not depend on the names of variables."""

import hashlib
import itertools
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import numpy as np

from gradstab import _compat
from gradstab._attempt import Refusal, attempt
from gradstab._rules import scope_of
from gradstab.program.sketch import mark_of


class Forms:
    """Numbers programs such that equal numbers mean equal programs.

    Equal means: the same primitives in the same order with the same parameters, on
    variables of the same shapes and dtypes in the same pattern. Parameters are
    compared by value, programs inside them by this same rule, functions by identity.
    Rules of differentiation are new functions at every trace; they are compared by
    the programs that they make: the primal and its first derivative. What cannot be
    compared for certain gets a number of its own.
    """

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._programs: dict[tuple[int, bool], tuple[Any, int]] = {}
        self._unique = itertools.count()

    def number(
        self,
        eqns: Sequence[_compat.JaxprEqn],
        invars: Sequence[_compat.Var],
        outvars: Sequence[_compat.Var | _compat.Literal],
        /,
    ) -> int:
        """The number of the program ``invars -> outvars``.

        Variables that no equation makes and that are not among ``invars`` are
        numbered in the order in which the equations use them first.
        """
        try:
            return self._number(self._form(eqns, invars, outvars, rules=True))
        except _UncertainError:
            return self._number(("unique", next(self._unique)))

    def _number(self, form: Hashable) -> Any:
        return self._numbers.setdefault(form, len(self._numbers))

    def _form(
        self,
        eqns: Sequence[_compat.JaxprEqn],
        invars: Sequence[_compat.Var],
        outvars: Sequence[_compat.Var | _compat.Literal],
        *,
        rules: bool,
    ) -> Hashable:
        seen: dict[Any, int] = {}

        def atom(variable: _compat.Var | _compat.Literal) -> Hashable:
            if isinstance(variable, _compat.Literal):
                return self._typed(variable), _array(variable.val)
            if variable not in seen:
                seen[variable] = len(seen)
                return seen[variable], self._typed(variable)
            return seen[variable]

        start = tuple(map(atom, invars))
        lines = []
        for eqn in eqns:
            if eqn.effects:
                raise _UncertainError
            operands = tuple(map(atom, eqn.invars))
            inside = self._inside(eqn, rules=rules), self._label(eqn)
            lines.append((eqn.primitive, inside, operands, *map(atom, eqn.outvars)))
        return start, tuple(lines), tuple(map(atom, outvars))

    def _label(self, eqn: _compat.JaxprEqn) -> Hashable:
        """What an equation is called, where that counts."""
        return None

    def _typed(self, variable: _compat.Var | _compat.Literal) -> Hashable:
        """What a variable holds, so far as that counts."""
        return _type(variable)

    def _inside(self, eqn: _compat.JaxprEqn, *, rules: bool) -> Hashable:
        """The form of an equation's parameters."""
        if _compat.given_name(eqn) is not None:
            return ()
        if _compat.is_rule(eqn):
            primal = tuple(self._program(p, rules) for p in _compat.inner_programs(eqn))
            if (identity := _compat.rule_identity(eqn)) is not None:
                return primal, self._value(identity, rules)
            return primal, self._derivative(eqn) if rules else None
        return tuple(
            (name, self._value(value, rules))
            for name, value in sorted(eqn.params.items())
            if (eqn.primitive.name, name) not in _LABELS
        )

    def _derivative(self, eqn: _compat.JaxprEqn) -> Hashable:
        traced = attempt(_derivative, eqn)
        if isinstance(traced, Refusal):
            raise _UncertainError from traced.error
        # Rules inside this program would only be used by second derivatives.
        return self._program(traced, rules=False)

    def _program(self, program, rules: bool) -> Hashable:
        """The number of a program, closed or open, inside an equation."""
        key = id(program), rules
        if key not in self._programs:
            inner = getattr(program, "jaxpr", program)
            invars = [*inner.constvars, *inner.invars]
            constants = tuple(map(_array, getattr(program, "consts", ())))
            form = self._form(inner.eqns, invars, inner.outvars, rules=rules)
            # The program is kept: an id is free for reuse with its object.
            self._programs[key] = program, self._number((constants, form))
        return self._programs[key][1]

    def _value(self, value: Any, rules: bool) -> Hashable:
        if hasattr(value, "eqns"):
            return self._program(value, rules)
        if isinstance(value, dict):
            items = sorted(value.items(), key=lambda item: str(item[0]))
            return tuple((key, self._value(item, rules)) for key, item in items)
        if isinstance(value, (tuple, list)):
            return type(value), *(self._value(item, rules) for item in value)
        if hasattr(value, "dtype") and hasattr(value, "shape"):
            return _array(value)
        try:
            hash(value)
        except TypeError as error:
            raise _UncertainError from error
        # The numbers 1, 1.0 and True are equal, and so are 0.0 and -0.0.
        return type(value), repr(value) if isinstance(
            value, (float, complex)
        ) else value


class _Keys(Forms):
    """Forms that can be compared with those of other times; names may count in them."""

    def __init__(self, names: bool) -> None:
        super().__init__()
        self._names, self._held = names, 0

    def _number(self, form: Hashable) -> Hashable:
        return form

    def _label(self, eqn: _compat.JaxprEqn) -> Hashable:
        if not self._names:
            return None
        named = (
            _compat.rule_name(eqn) if _compat.is_rule(eqn) else eqn.params.get("name")
        )
        label = named if isinstance(named, str) else None
        return scope_of(eqn), mark_of(eqn), _compat.given_name(eqn), label

    def _program(self, program, rules: bool) -> Hashable:
        if (id(program), rules) not in self._programs:
            held = getattr(program, "consts", ())
            self._held += sum(getattr(array, "nbytes", 0) for array in held)
            if self._held > _MOST_BYTES:
                raise _UncertainError
        return super()._program(program, rules)

    def _typed(self, variable: _compat.Var | _compat.Literal) -> Hashable:
        return variable.aval  # with its sharding, and whether its dtype is weak


def key_of(
    closed: _compat.ClosedJaxpr, /, *, constants: bool = True, names: bool = True
) -> Hashable | None:
    """What is equal for programs that compute the same and call it the same.

    Args:
        closed: a closed program.
        constants: whether the values of its constants count; those of the programs
            inside of it do always.
        names: whether those of scopes, rules and values count.

    Returns:
        The key; None if the program cannot be compared for certain (see `Forms`), has
        effects, holds values of another program that is being traced, or so many that
        whoever remembers it would hold much memory (16 MiB). Two keys are
        equal only if everything is: operations, shapes, dtypes, constants, derivative
        rules, and names and the numbers of equations, if they count.
    """
    keys, jaxpr = _Keys(names), closed.jaxpr
    try:
        if constants:
            return keys._program(closed, rules=True)
        invars = [*jaxpr.constvars, *jaxpr.invars]
        return keys._form(jaxpr.eqns, invars, jaxpr.outvars, rules=True)
    except _UncertainError:
        return None


class _UncertainError(Exception):
    """Two programs cannot be compared for certain."""


# Of arrays that a program holds.
_MOST_BYTES = 2**24

# An array is compared by its bytes up to so many, and by their digest above.
_SHORT = 4096


# Parameters that say how something is called, not what it computes.
_LABELS = {("jit", "name"), ("pjit", "name")}


def _type(variable: _compat.Var | _compat.Literal) -> tuple[tuple[int, ...], Any]:
    return _compat.shape_of(variable), _compat.dtype_of(variable)


def _array(value: Any) -> tuple[tuple[int, ...], str, bytes]:
    """An array by value; tracers and keys have none to look at."""
    try:
        array = np.asarray(value)
    except (TypeError, jax.errors.TracerArrayConversionError) as error:
        raise _UncertainError from error
    if array.dtype == object:
        raise _UncertainError
    content = array.tobytes()
    if len(content) > _SHORT:
        content = hashlib.sha256(content).digest()
    return array.shape, str(array.dtype), content


def _derivative(eqn: _compat.JaxprEqn) -> _compat.ClosedJaxpr:
    """The program of the first derivative of an equation with a rule of its own."""
    if _compat.looks_at_zeros(eqn):
        raise _UncertainError  # the rule may look at what is zero: no one program
    operands = [v for v in eqn.invars if not isinstance(v, _compat.Literal)]
    operands = list(dict.fromkeys(operands))
    moving = [i for i, v in enumerate(operands) if _compat.is_floating(v)]
    run = _compat.program_function(operands, eqn.outvars, [eqn])

    def derivative(values: Sequence[jax.Array], directions: Sequence[jax.Array]):
        def along(*floating: jax.Array) -> list[jax.Array]:
            filled = list(values)
            for i, value in zip(moving, floating, strict=True):
                filled[i] = value
            return [
                x for x in run(*filled) if jax.numpy.issubdtype(x.dtype, np.inexact)
            ]

        primals = [values[i] for i in moving]
        if _compat.backward_only(eqn):
            out, pull = jax.vjp(along, *primals)
            return out, pull(directions)
        return jax.jvp(along, primals, directions)

    shapes = [_shape(v) for v in operands]
    if _compat.backward_only(eqn):
        directions = [_shape(v) for v in eqn.outvars if _compat.is_floating(v)]
    else:
        directions = [shapes[i] for i in moving]
    return jax.make_jaxpr(derivative)(shapes, directions)


def _shape(variable: _compat.Var | _compat.Literal) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(*_type(variable))
