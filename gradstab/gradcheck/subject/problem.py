"""What is checked, and in which precision."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck.subject import traits
from gradstab.gradcheck.subject.abilities import REFUSALS, VMAP, abilities, program
from gradstab.gradcheck.subject.arguments import floating_part
from gradstab.gradcheck.subject.settings import settings

MODES = ("forward", "reverse")
PRECISIONS = (None, "float64", "own")


# There float64 does not exist, or is emulated at a hundredth of the speed.
_NO_FLOAT64 = ("METAL", "tpu")

# Bytes per evaluation up to which compiling costs more than the check's running.
_SMALL = 2**15


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
        engine: ``vmap``, ``map`` (one point at a time, compiled) or ``loop`` (in
            Python): how f is evaluated at many points.
        footprint: bytes that one evaluation of f takes, roughly.
        iterates: whether f holds a loop that may not converge elsewhere.
        has_rules: whether f holds custom rules of differentiation.
        quick: whether its programs are better compiled fast than well.
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
    engine: str = VMAP
    footprint: int = 0
    iterates: bool = False
    has_rules: bool = False
    quick: bool = False

    def context(self):
        """The JAX settings under which f is called."""
        return settings(wide=self.wide)


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
        The problem in float64, with the one in its own precision beside it, or, if f
        does not trace there or rounds to a narrower dtype inside, the latter, with a
        note that says why.

    Raises:
        TypeError: there is no rule for the only mode asked for, or f does not exist in
            the precision asked for.
        ValueError: there is no floating argument or no floating output.
    """
    if precision is None and jax.default_backend() in _NO_FLOAT64:
        reason = f"float64 is slow or absent on {jax.default_backend()}"
    elif precision == "own":
        reason = "that was asked for"
    else:
        lifted, reason = _lifted(f, args, modes, own=own)
        if lifted is not None:
            return lifted
        if precision == "float64":
            raise TypeError(f"f cannot be checked in float64: {reason}")
    with settings(wide=False):
        found = _trace(f, args, modes, None)
    if found.dtype == jnp.float64:
        return found
    note = f"f was checked in its own {found.dtype}, because {reason}"
    return dataclasses.replace(found, notes=(note, *found.notes))


def _lifted(f, args, modes, *, own):
    """The problem in float64 with its own beside it, or None and the reason."""
    with settings(wide=True):
        try:
            lifted = _trace(f, args, modes, jnp.float64)
        except REFUSALS as error:
            line = (str(error).splitlines() or [""])[0][:160]
            return None, f"it does not trace in float64: {type(error).__name__}: {line}"
    if lifted.dtype != jnp.float64:
        return None, f"it rounds to {lifted.dtype} inside"
    beside = _own(f, args, lifted) if own else None
    return dataclasses.replace(lifted, own=beside), ""


def _own(f, args, lifted) -> Problem | None:
    """The problem in the precision of the arguments; None if that is float64."""
    with settings(wide=False):
        try:
            own = _trace(f, args, lifted.modes, None)
        except REFUSALS:
            return None
    alike = [y.shape for y in own.outputs] == [y.shape for y in lifted.outputs]
    return own if alike and own.dtype != jnp.float64 else None


def _trace(f, args, modes, dtype) -> Problem:
    of_leaves, point, names = floating_part(args, dtype)
    lone = of_leaves(f)
    closed = program(lone, point)
    results = closed.out_avals if closed is not None else lone(point)
    outputs = tuple(jax.ShapeDtypeStruct(y.shape, y.dtype) for y in results)
    if not outputs:
        raise ValueError("nothing to check: f returns no floating array.")
    modes, engine, notes = abilities(lone, point, outputs, modes, closed)
    dtypes = {x.dtype for x in (*point, *outputs)}
    dtypes |= traits.roundings(closed) if closed is not None else set()
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
        iterates=closed is not None and traits.iterates(closed),
        has_rules=closed is None or traits.has_rules(closed),
        quick=closed is not None
        and footprint <= _SMALL
        and not traits.convolves(closed),
    )


def _footprint(point, outputs, closed) -> int:
    """Arguments and outputs, and four times the largest array in between."""
    ends = sum(x.size * x.dtype.itemsize for x in (*point, *outputs))
    return ends + 4 * (traits.largest_array(closed) if closed is not None else 0)
