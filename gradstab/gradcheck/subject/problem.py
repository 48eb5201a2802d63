"""What is checked, and in which precision."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat
from gradstab._attempt import Refusal
from gradstab.errors import UserTypeError, UserValueError
from gradstab.gradcheck.subject import iterations, traits
from gradstab.gradcheck.subject.abilities import (
    LOOP,
    REFUSALS,
    VMAP,
    abilities,
    has_vjp,
    program,
)
from gradstab.gradcheck.subject.arguments import floating_part
from gradstab.gradcheck.subject.dependence import moved_results
from gradstab.gradcheck.subject.host_calls import hosted, trouble
from gradstab.gradcheck.subject.sameness import same
from gradstab.gradcheck.subject.settings import settings
from gradstab.gradcheck.subject.unrounded import unrounded
from gradstab.program.compiling import quick_options
from gradstab.program.shared import SharedProgram

MODES = ("forward", "reverse")
PRECISIONS = (None, "float64", "own")


_SCATTERED = (
    "parts of f lie on different devices: it was called one point at a time, not "
    "compiled as a whole"
)

# There float64 does not exist, or is emulated at a hundredth of the speed.
_NO_FLOAT64 = ("METAL", "tpu")

# Code whose value changes by more than this when it is widened is made for its dtype.
_SAME = 0.1

_SAMPLES = (
    "f draws from a gamma distribution, or one made of it (beta, dirichlet, t, ...): "
    "such gradients are implicit on purpose, of the distribution and not of the draw"
)

# Bytes per evaluation up to which compiling costs more than the check's running.
_SMALL = 2**15


class _NotInFloat64(Exception):
    """What f calls has no form in float64; the message says why."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """A function of its floating leaves alone, ready to be probed.

    Attributes:
        f: from a tuple of arrays to the tuple of its non-empty floating outputs.
        leaves: the point, one array per floating argument leaf.
        names: of the leaves, such as ``args[0].kernel``.
        outputs: shape records of the outputs.
        modes: those that f has, of the ones asked for.
        dtype: the coarsest that f computes in; its rounding limits the check.
        wide: whether everything was lifted to float64.
        notes: for the reader of the result.
        of_leaves: makes another function of the same arguments one of the leaves.
        own: the same problem in its own precision, if that is not float64; None also if
            `wide` is not set.
        widened: whether f exists in its own precision only, and what it computes there
            was put into float64: a copy of f and its rules, which knows nothing of what
            JAX makes of them under transformations.
        engine: ``vmap``, ``map`` (one point at a time, compiled) or ``loop`` (in
            Python): how f is evaluated at many points.
        footprint: bytes that one evaluation of f takes, roughly.
        limit: how many iterations of a loop that may not end elsewhere count as
            endless; zero if f holds none.
        waits: whether f holds a loop of which only running it tells how long it takes.
        has_rules: whether f holds custom rules of differentiation.
        users_rules: whether one of them is not JAX's own.
        quick: whether its programs are better compiled fast than well.
        once: whether f is large, JAX's own all through and traced into the same program
            again: then it is not compiled again to see whether it repeats.
        output_names: of the outputs, such as ``output['loss']``.
        hosted: whether f or its rules call functions of the host.
    """

    f: Callable
    leaves: tuple
    names: tuple[str, ...]
    outputs: tuple
    modes: tuple[str, ...]
    dtype: np.dtype
    wide: bool
    notes: tuple[str, ...]
    of_leaves: Callable
    own: "Problem | None" = None
    widened: bool = False
    engine: str = VMAP
    footprint: int = 0
    limit: int = 0
    waits: bool = False
    has_rules: bool = False
    users_rules: bool = False
    quick: bool = False
    hosted: bool = False
    once: bool = False
    output_names: tuple[str, ...] = ()

    @property
    def iterates(self) -> bool:
        """Whether f holds a loop that may not end elsewhere."""
        return self.limit > 0

    @property
    def as_given(self) -> "Problem":
        """The problem whose f is the user's own, and no copy."""
        return self.own if self.widened and self.own is not None else self

    def of_outputs(self, names: tuple[str, ...], /) -> "Problem":
        """The same problem of some outputs alone; of all if none is named."""
        if not names:
            return self
        kept = [n for n, name in enumerate(self.output_names) if name in names]
        return dataclasses.replace(
            self,
            f=self.only(self.f, names),
            outputs=tuple(self.outputs[n] for n in kept),
            output_names=tuple(self.output_names[n] for n in kept),
        )

    def only(self, g: Callable, names: tuple[str, ...], /) -> Callable:
        """A function of the leaves with the outputs of that name alone."""
        kept = [n for n, name in enumerate(self.output_names) if name in names]
        return lambda point: tuple(y for n, y in enumerate(g(point)) if n in kept)

    def context(self):
        """The JAX settings under which f is called."""
        return settings(wide=self.wide, everywhere=self.hosted)

    def compiled(self, program: Callable, /):
        """A program of f's, to be compiled when it is first called."""
        options = quick_options() if self.quick else None
        return SharedProgram(program, options)

    def like_f(self, g: Callable, /) -> Callable:
        """Another function of f's arguments, of the leaves and in the precision of `f`.

        Raises:
            NotImplementedError: f was widened, and g cannot be.
        """
        lone = self.of_leaves(g)
        if not self.widened or self.own is None:
            return lone
        with self.own.context():
            outputs = jax.eval_shape(lone, self.own.leaves)
            reverse = has_vjp(lone, self.own.leaves, outputs)
            options = {"forward": not reverse, "dtype": self.own.dtype}
            wide = unrounded(lone, self.own.leaves, outputs, **options)
        with self.context():
            jax.eval_shape(wide, self.leaves)
        return wide


def problem(
    f: Callable,
    args: tuple,
    /,
    *,
    modes: tuple[str, ...] = MODES,
    precision: str | None = None,
    own: bool = True,
) -> Problem:
    """Lifts f to float64 if it can be, and finds what there is to check.

    Args:
        f: any function of pytrees to a pytree.
        args: its arguments. Complex numbers become pairs of real ones. Integers,
            booleans, PRNG keys and everything else that is not a floating array or
            number is passed on as it is.
        modes: the derivative rules asked for.
        precision: ``float64``, ``own`` (of the arguments), or None for the former if f
            exists in it, and the hardware has it.
        own: whether the problem in its own precision is wanted beside that in float64.

    Returns:
        The problem in float64, with the one in its own precision beside it. If f does
        not trace in float64, or rounds to a narrower dtype inside whatever it is given,
        its program and those of its rules are widened. If that cannot be, the problem
        is that in its own precision. A note says why.

    Raises:
        TypeError: there is no rule for the only mode asked for, or f does not exist in
            the precision asked for.
        ValueError: there is no floating argument or no floating output.
    """
    wanted = precision != "own"
    if precision is None and jax.default_backend() in _NO_FLOAT64:
        wanted, reason = False, f"float64 is slow or absent on {jax.default_backend()}"
    elif precision == "own":
        reason = "that was asked for"
    else:
        lifted, reason = _lifted(f, args, modes, own=own)
        if lifted is not None and lifted.dtype == jnp.float64:
            return lifted
        if lifted is None and precision == "float64":
            raise UserTypeError(f"f cannot be checked in float64: {reason}")
    with settings(wide=False):
        found = _trace(f, args, modes, None)
    if found.dtype == jnp.float64:
        return found
    if wanted and (wide := _widened(found, reason)) is not None:
        return wide
    if precision == "float64":
        raise UserTypeError(f"f cannot be checked in float64: {reason}")
    note = f"f was checked in its own {found.dtype}, because {reason}"
    return dataclasses.replace(found, notes=(note, *found.notes))


def _widened(own: Problem, reason: str) -> Problem | None:
    """The problem with the programs of f and its rules in float64; None without."""
    if own.engine == LOOP:
        return None
    try:
        with own.context():
            options = {"forward": "forward" in own.modes, "dtype": own.dtype}
            f = unrounded(own.f, own.leaves, own.outputs, **options)
        with settings(wide=True):
            wide = _trace(f, (own.leaves,), own.modes, jnp.float64)
        # Any operation may turn out to have no form in float64.
        if wide.dtype != jnp.float64 or not _alike(own, wide):
            return None
    except (*REFUSALS, jax.errors.JaxRuntimeError):
        return None
    note = f"the program of f was widened to float64, because {reason}"
    return dataclasses.replace(
        wide,
        names=own.names,
        output_names=own.output_names,
        of_leaves=own.of_leaves,
        notes=(note, *own.notes),
        own=own,
        widened=True,
        limit=own.limit,
        waits=own.waits,
        has_rules=own.has_rules,
        users_rules=own.users_rules,
    )


def _alike(own: Problem, wide: Problem) -> bool:
    """Whether f has about the same value in both, and the same when traced again."""
    first, again, widened = map(_value, (own, own, wide))
    gap, size = np.linalg.norm(first - widened), np.linalg.norm(widened)
    return bool(gap <= _SAME * size) and np.array_equal(first, again)


def _value(task: Problem) -> np.ndarray:
    with task.context():
        # A new function each time: JAX remembers those that it has traced.
        program = SharedProgram(lambda point: task.f(point))
        found = jax.device_get(program(task.leaves))
    return np.concatenate([np.ravel(y).astype(float) for y in found])


def _lifted(f: Callable[..., Any], args: tuple, modes: Sequence[str], *, own):
    """The problem lifted to float64, its own beside it, or None; and what is wrong."""
    with settings(wide=True):
        try:
            lifted = _trace(f, args, modes, jnp.float64)
        except REFUSALS as error:
            return None, f"it does not trace in float64: {Refusal(error)}"
        except _NotInFloat64 as error:
            return None, str(error)
    if lifted.dtype != jnp.float64:
        return lifted, f"it rounds to {lifted.dtype} inside"
    beside = _own(f, args, lifted) if own else None
    return dataclasses.replace(lifted, own=beside), ""


def _own(f: Callable[..., Any], args: tuple, lifted) -> Problem | None:
    """The problem in the precision of the arguments; None if that is float64."""
    with settings(wide=False):
        try:
            own = _trace(f, args, lifted.modes, None, like=lifted)
        except REFUSALS:
            return None
    alike = [y.shape for y in own.outputs] == [y.shape for y in lifted.outputs]
    return own if alike and own.dtype != jnp.float64 else None


def _trace(
    f: Callable[..., Any],
    args: tuple,
    modes: Sequence[str],
    dtype,
    *,
    like: Problem | None = None,
) -> Problem:
    of_leaves, point, names = floating_part(args, dtype)
    output_names: list[str] = []
    lone = of_leaves(f, output_names)
    closed = program(lone, point)
    results = closed.out_avals if closed is not None else lone(point)
    outputs = tuple(jax.ShapeDtypeStruct(y.shape, y.dtype) for y in results)
    if not outputs:
        raise UserValueError("nothing to check: f returns no floating array.")
    compiles = closed is None or not _is_scattered(lone, point, closed)
    once = closed is not None and _repeats(lone, point, closed)
    if like is not None and like.once and once:
        modes, engine, notes = like.modes, like.engine, like.notes
    else:
        modes, engine, notes = abilities(
            lone, point, outputs, modes, closed if compiles else None
        )
    if not compiles:  # not for the reason that this note gives
        notes = (*notes[:-1], _SCATTERED)
    has_rules = closed is None or traits.has_rules(closed)
    calls = []
    if engine != LOOP and closed is not None and dtype is not None:
        calls = hosted(lone, point, outputs, modes, closed, has_rules=has_rules)
    with settings(wide=True, everywhere=True) if calls else contextlib.nullcontext():
        if error := trouble(calls):
            raise _NotInFloat64(f"the host does not compute in float64: {error}")
    if closed is not None and traits.samples(closed):
        notes = (*notes, _SAMPLES)
    dtypes = {x.dtype for x in point}
    if closed is None:
        dtypes |= {y.dtype for y in outputs}
    else:
        moved = zip(outputs, moved_results(closed), strict=True)
        dtypes |= {y.dtype for y, m in moved if m} | traits.roundings(closed)
    footprint = _footprint(point, outputs, closed)
    return Problem(
        f=lone,
        leaves=point,
        names=names,
        outputs=outputs,
        modes=modes,
        dtype=max(dtypes, key=lambda d: float(jnp.finfo(d).eps)),
        wide=dtype is not None,
        notes=notes,
        of_leaves=of_leaves,
        engine=engine,
        footprint=footprint,
        limit=0 if closed is None else iterations.limit(closed, point),
        waits=closed is not None and traits.waits(closed),
        has_rules=has_rules,
        users_rules=closed is not None and traits.has_rules_of_users(closed),
        hosted=bool(calls),
        quick=closed is not None
        and footprint <= _SMALL
        and not traits.convolves(closed),
        output_names=tuple(output_names),
        once=once,
    )


def _repeats(
    f: Callable[..., Any], point: Sequence[Any], closed: _compat.ClosedJaxpr
) -> bool:
    """Whether f is large, JAX's own, and traced into the same program again."""
    if not traits.is_large_and_plain(closed):
        return False
    # A new function: JAX remembers those that it has traced.
    again = program(lambda leaves: f(leaves), point)
    return again is not None and same(closed, again)


def _is_scattered(
    f: Callable[..., Any], point: Sequence[Any], closed: _compat.ClosedJaxpr
) -> bool:
    """Whether f cannot be compiled as a whole, as its parts are on several devices."""
    if not traits.names_several_device_sets(closed):
        return False
    try:
        jax.jit(f).lower(point)
    except ValueError:
        return True
    return False


def _footprint(point: Sequence[Any], outputs: tuple, closed) -> int:
    """Arguments and outputs, and four times the largest array in between."""
    ends = sum(x.size * x.dtype.itemsize for x in (*point, *outputs))
    return ends + 4 * (traits.largest_array(closed) if closed is not None else 0)
