"""What is checked, and in which precision."""

import contextlib
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from gradstab import _tree

MODES = ("forward", "reverse")

# What tracing raises at code that exists in one precision only.
_UNTRACEABLE = (TypeError, ValueError, NotImplementedError, AssertionError)


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
    """

    f: Callable
    leaves: tuple
    names: tuple[str, ...]
    outputs: tuple
    modes: tuple[str, ...]
    dtype: np.dtype
    wide: bool
    notes: tuple[str, ...]

    def context(self):
        """The JAX settings under which f is called."""
        return _context(wide=self.wide)


def problem(f: Callable, args: tuple, /, *, modes: tuple[str, ...]) -> Problem:
    """Lifts f to float64 if it can be, and finds what there is to check.

    Args:
        f: any function of pytrees to a pytree.
        args: its arguments. Integers, booleans, PRNG keys and everything else that is
            not a floating array or number is passed on as it is.
        modes: the derivative rules asked for.

    Returns:
        The problem in float64, or, if f does not trace there or rounds to a narrower
        dtype inside, in its own precision, with a note that says why.

    Raises:
        TypeError: a complex argument, or no rule for the only mode asked for.
        ValueError: there is no floating argument or no floating output.
    """
    with _context(wide=True):
        try:
            lifted = _trace(f, args, modes, jnp.float64)
        except _UNTRACEABLE as error:
            line = (str(error).splitlines() or [""])[0][:160]
            reason = f"it does not trace in float64: {type(error).__name__}: {line}"
        else:
            if lifted.dtype == jnp.float64:
                return lifted
            reason = f"it rounds to {lifted.dtype} inside"
    with _context(wide=False):
        own = _trace(f, args, modes, None)
    note = f"f was checked in its own {own.dtype}, because {reason}"
    return dataclasses.replace(own, notes=(note, *own.notes))


@contextlib.contextmanager
def _context(*, wide: bool):
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.default_matmul_precision("highest"))
        # Every call of f is to see the same key: that is what is checked.
        stack.enter_context(jax.debug_key_reuse(False))
        # float32 constants inside f meet float64 here; the user did not write that.
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        if wide:
            stack.enter_context(jax.enable_x64(True))
        yield


def _trace(f, args, modes, dtype) -> Problem:
    leaves, treedef = jax.tree.flatten(args)
    where = [i for i, leaf in enumerate(leaves) if _is_probed(leaf)]
    if not where:
        raise ValueError(
            "nothing to check: no argument of f has a floating entry; the leaves are "
            f"[{', '.join(type(leaf).__name__ for leaf in leaves)}]."
        )
    point = tuple(jnp.asarray(leaves[i], dtype) for i in where)

    def of_leaves(floating):
        full = list(leaves)
        for i, leaf in zip(where, floating, strict=True):
            full[i] = leaf
        out = jax.tree.leaves(f(*jax.tree.unflatten(treedef, full)))
        return tuple(y for y in map(jnp.asarray, out) if _is_output(y))

    closed = jax.make_jaxpr(of_leaves)(point)
    outputs = tuple(jax.ShapeDtypeStruct(y.shape, y.dtype) for y in closed.out_avals)
    if not outputs:
        raise ValueError("nothing to check: f returns no floating array.")
    modes, notes = _available(of_leaves, point, outputs, modes)
    dtypes = {y.dtype for y in (*point, *outputs)} | _roundings(closed.jaxpr)
    names = _names(args)
    return Problem(
        f=of_leaves,
        leaves=point,
        names=tuple(names[i] for i in where),
        outputs=outputs,
        modes=modes,
        dtype=max(dtypes, key=lambda d: float(jnp.finfo(d).eps)),
        wide=dtype is not None,
        notes=notes,
    )


def _names(args):
    return [
        f"args[{i}].{path}".rstrip(".")
        for i, arg in enumerate(args)
        for path in _tree.paths(arg)
    ]


def _is_probed(leaf) -> bool:
    if not isinstance(leaf, float | complex | np.ndarray | np.generic | jax.Array):
        return False
    _refuse_complex(leaf, "an argument")
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating) and jnp.size(leaf) > 0


def _is_output(y) -> bool:
    _refuse_complex(y, "an output")
    return jnp.issubdtype(y.dtype, jnp.floating) and y.size > 0


def _refuse_complex(leaf, what):
    if jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating):
        raise TypeError(
            f"{what} of f is {jnp.result_type(leaf)}; expected real numbers. Check a "
            "function of the real and imaginary parts instead."
        )


def _available(f, point, outputs, modes):
    """Traces the rules, so that a broken one raises here, and drops what f lacks."""
    if "reverse" in modes:
        jax.eval_shape(lambda p, w: jax.vjp(f, p)[1](w), point, outputs)
    if "forward" not in modes:
        return modes, ()
    # Tracing the JVP of a custom_vjp is not refused yet; mapping it is.
    rows = [jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for x in point]
    rule = jax.vmap(lambda v: jax.jvp(f, (point,), (v,)))
    try:
        jax.eval_shape(rule, tuple(rows))
    except TypeError as error:
        if "custom_vjp" not in str(error) or modes == ("forward",):
            raise
        note = "forward mode was not checked: f has a custom_vjp, which has no JVP"
        return ("reverse",), (note,)
    return modes, ()


def _roundings(jaxpr) -> set:
    """The dtypes to which f rounds a wider number inside."""
    found = set()
    for eqn in jaxpr.eqns:
        widest = max((_bits(v) for v in eqn.invars), default=0)
        narrow = [v.aval.dtype for v in eqn.outvars if 0 < _bits(v) < widest]
        found.update(narrow)
        for inner in jax.tree.leaves(list(eqn.params.values())):
            if isinstance(inner, Jaxpr | ClosedJaxpr):
                found |= _roundings(getattr(inner, "jaxpr", inner))
    return found


def _bits(variable) -> int:
    dtype = getattr(variable.aval, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        return 0
    return jnp.finfo(dtype).nmant
