"""The activation functions inside a block, found by what they do to single entries.

An activation is a chain of elementwise equations that starts from one array of data
and meets nothing else but scalars: `tanh`, but also ``x * sigmoid(1.702 * x)`` or a
user's own function. Adding a bias or multiplying with a mask starts a new chain. So a
chain is a scalar function phi, and phi' at the data says which units are saturated.
"""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat, _tree
from gradstab.network.foreign import limited, over_leading
from gradstab.program import primitives
from gradstab.program.compiling import quick_jit, quick_options
from gradstab.program.primitives import Kind
from gradstab.program.shared import SharedProgram
from gradstab.program.trace import is_complex
from gradstab.program.walk import walk

# Where the greatest slope of an activation is looked for: well past the knee of every
# activation in use, finer than the width of any of their features.
_REACH = 8.0
_GRID = 512

# Of an array of more entries only the first are computed, by a compiled program.
_LARGE = 2**16


@dataclasses.dataclass(frozen=True, eq=False)
class Activation:
    """A scalar function inside a block.

    Attributes:
        eqns: its equations, in order.
        root: the variable that it is applied to.
        result: the variable that it yields.
        greatest_slope: its largest absolute derivative within [-8, 8].
        context: values of the other variables that the equations use.
    """

    eqns: tuple
    root: _compat.Var
    result: _compat.Var
    greatest_slope: float = math.nan
    context: dict = dataclasses.field(default_factory=dict)

    def __call__(self, z):
        """The activation of every entry; ``z`` has the shape of the root."""
        return walk(self.eqns, {**self.context, self.root: z})[self.result]

    def slopes(self, z):
        """The derivative at every entry of ``z``.

        A complex result is two units, the real and the imaginary part: they follow each
        other on the last axis. By a complex number the derivative is the length of the
        gradient in the plane.
        """
        # Backward: a user's own function may have a rule for that direction only.
        out, pull = jax.vjp(self, z)
        ones = jnp.ones_like(out)
        if not _tree.is_complex(out):
            return _size(pull(ones)[0])
        parts = [_size(pull(w)[0]) for w in (ones, 1j * ones)]
        return jnp.stack(parts, -1).reshape(*out.shape[:-1], -1)

    @property
    def is_analytic(self):
        """Whether it is a derivable function of complex numbers, which has no bound.

        Such a function has one derivative in all directions of the plane: multiplying
        with i commutes with it. By a theorem of Liouville it is linear, or its slope
        grows beyond any number: at a pole, or far out.
        """
        if not (is_complex(self.root) and is_complex(self.result)):
            return False
        z = jnp.asarray(_disc(math.prod(shape := _compat.shape_of(self.root))))
        out, pull = jax.vjp(self, z.reshape(shape).astype(_compat.dtype_of(self.root)))
        ones = jnp.ones_like(out)
        along, across = pull(ones)[0], pull(1j * ones)[0]
        gap = _tree.safe_norm(across - 1j * along)
        return bool(gap <= 1e-3 * _tree.safe_norm(along))

    def slope_bounds(self, *reaches):
        """The largest absolute derivative within [-reach, reach], on 512 points.

        Of a function of complex numbers: within the disc of that radius.
        """
        shape, dtype = _compat.shape_of(self.root), _compat.dtype_of(self.root)
        spread = _disc if is_complex(self.root) else _interval
        if large := math.prod(shape) > _LARGE:
            grid = spread(_GRID)
        else:
            calls = -(-_GRID // math.prod(shape))
            grid = spread(calls * math.prod(shape)).reshape(calls, *shape)
        every = np.concatenate([reach * grid for reach in reaches]).astype(dtype)
        if large:
            slopes = _slopes_of_first(self, every)
        else:
            slopes = over_leading(self.eqns, self.slopes)
            if not any(map(limited, self.eqns)):
                # One program, not one for each operation, nor for each such activation.
                slopes = SharedProgram(slopes, quick_options())
            slopes = slopes(every)
        sizes = np.abs(np.asarray(slopes, np.float64))
        return [float(np.max(part)) for part in np.split(sizes, len(reaches))]


def _size(slope):
    return jnp.abs(slope) if _tree.is_complex(slope) else slope


def _interval(count):
    return np.linspace(-1, 1, count)


def _disc(count):
    """Points of the unit disc, spread evenly along a spiral."""
    turn = math.pi * (3 - math.sqrt(5))
    number = np.arange(count)
    return np.sqrt((number + 0.5) / count) * np.exp(1j * turn * number)


def _slopes_of_first(activation, points):
    """The derivative at some points, which fill the first entries of the root.

    Compiled, so that nothing is computed of the entries behind them.
    """
    shape = _compat.shape_of(activation.root)
    parts = 2 if is_complex(activation.result) else 1

    def slopes(points):
        z = jnp.pad(points, (0, math.prod(shape) - len(points))).reshape(shape)
        return activation.slopes(z).reshape(-1)[: parts * len(points)]

    return quick_jit(slopes)(points)


class Saturation(NamedTuple):
    """How much of a block's activations passes no gradient; scalars in [0, 1].

    Attributes:
        saturated: fraction of entries whose slope is at most 5 % of the greatest one.
        dead: fraction of units (indices of the last axis) whose slope is exactly zero
            for every example and position.
    """

    saturated: jax.Array
    dead: jax.Array


# A sigmoid's slope falls to 5 % of its maximum at |z| = 4.3, tanh's at 2.2, where
# both are within 1.5 % of their limits: what is called saturated.
_SATURATED = 0.05


def find_activations(block, /) -> tuple[Activation, ...]:
    """The nonlinear elementwise chains with a bounded slope in a block, in order.

    What a normalisation does to means and variances is elementwise as well, and so is
    the exponential of a softmax; but the former acts on statistics, not on units, and
    the slope of the latter has no bound to be compared with: both are left out.
    """
    return block.programs.get("activations", lambda: _find_activations(block))


def _find_activations(block):
    roots, statistics = _roots(block), _statistics(block)
    found = []
    for result in _ends(block, roots):
        eqns = _chain(block, roots[result], result)
        empty = not math.prod(_compat.shape_of(result))
        if empty or roots[result] in statistics:
            continue
        if any(not _is_linear(eqn, roots) for eqn in eqns):
            chain = Activation(tuple(eqns), roots[result], result)
            with _at_once():
                near, far = chain.slope_bounds(_REACH, 2 * _REACH)
                analytic = chain.is_analytic
            if far <= 1.5 * near and not analytic:  # False for NaN, outside of a domain
                found.append(dataclasses.replace(chain, greatest_slope=near))
    return tuple(found)


def _at_once():
    """A context in which numbers are computed at once, while a program is traced too.

    Elsewhere it would take the programs that are traced in it apart.
    """
    if _compat.computes_now():
        return contextlib.nullcontext()
    return jax.ensure_compile_time_eval()


def saturation(block, activations, context, data: Sequence[jax.Array], /) -> Saturation:
    """How much of a block's activations passes no gradient at these data.

    Args:
        block: the block.
        activations: from `find_activations`.
        context: its `Context`.
        data: tuple of the data that enter.

    Returns:
        Fractions over all activations of the block; NaN if it has none. Cost: one
        evaluation of the block.
    """
    if not activations:
        nan = jnp.full((), jnp.nan, jnp.float32)
        return Saturation(nan, nan)
    env = walk(block.eqns, block.environment(context, data))
    saturated, dead, entries, units = [], [], 0, 0
    for activation in activations:
        slope = jnp.abs(activation.slopes(env[activation.root]))
        floor = _SATURATED * activation.greatest_slope
        saturated.append(jnp.sum(slope <= floor))
        by_unit = slope.reshape(-1, slope.shape[-1]) if slope.ndim else slope[None]
        dead.append(jnp.sum(jnp.all(by_unit == 0, axis=0)))
        entries += slope.size
        units += by_unit.shape[-1]
    return Saturation(_fraction(saturated, entries), _fraction(dead, units))


def unread(block, /) -> str:
    """What hides the activations of a block, if it has any; empty if nothing does.

    Hidden is what happens inside of a call of foreign code, of a kernel, of a
    primitive that is not one of JAX's own, of a branch or loop, and of a rule of
    differentiation for more than single entries.
    """
    names = dict.fromkeys(
        _compat.rule_name(eqn) if _compat.is_rule(eqn) else primitives.name_of(eqn)
        for eqn in block.eqns
        if _hides(eqn) and any(map(_compat.is_floating, eqn.outvars))
    )
    if not names:
        return ""
    return f"saturation unknown: {', '.join(names)} cannot be looked into"


def _hides(eqn: _compat.JaxprEqn):
    if is_elementwise(eqn) or _compat.scan_parts(eqn):  # which has a record of its own
        return False
    # A product holds no program but, inside of a rule, need not be all that it does.
    return bool(_compat.inner_programs(eqn)) or not _compat.is_builtin(eqn)


def _fraction(counts, total):
    return jnp.sum(jnp.stack(counts)).astype(jnp.float32) / total


def _roots(block):
    """For every variable made in the block from data, where its chain starts.

    A variable that starts a chain is its own root. Constants, made from nothing but
    numbers written in the function, have the root None.
    """
    roots = {v: v for v in block.in_vars}
    for eqn in block.eqns:
        atoms = [v for v in eqn.invars if not isinstance(v, _compat.Literal)]
        if all(roots.get(v, v) is None for v in atoms):
            roots.update(dict.fromkeys(eqn.outvars))
            continue
        starts = {roots.get(v, v) for v in atoms} - {None}
        (start,) = starts if len(starts) == 1 else (None,)
        continues = (
            start is not None
            and start in roots
            and _compat.shape_of(start) == _compat.shape_of(eqn.outvars[0])
            and is_elementwise(eqn)
        )
        roots.update({v: start if continues else v for v in eqn.outvars})
    return roots


def _statistics(block):
    """Sums and extrema over axes, and what is computed from them entry by entry."""
    made = {v for eqn in block.eqns for v in eqn.outvars} | set(block.in_vars)
    found = set()
    for eqn in block.eqns:
        atoms = [v for v in eqn.invars if not isinstance(v, _compat.Literal)]
        data = [v for v in atoms if v in made]
        carried = is_elementwise(eqn) or primitives.is_a(eqn, Kind.RESHAPES)
        if primitives.reduces(eqn) or (
            carried and data and all(v in found for v in data)
        ):
            found.update(eqn.outvars)
    return found


def is_elementwise(eqn: _compat.JaxprEqn, /) -> bool:
    """Whether every entry of the results comes from one entry of each operand."""
    if primitives.acts_on_entries(eqn):
        return True
    wraps = _compat.is_rule(eqn) or _compat.inlined_body(eqn) is not None
    bodies = _compat.inner_programs(eqn)[:1] if wraps else []
    return bool(bodies) and all(is_elementwise(e) for b in bodies for e in b.eqns)


def _is_linear(eqn: _compat.JaxprEqn, roots):
    # Linear in real and imaginary parts, however many operands move.
    if primitives.is_a(eqn, Kind.PARTS):
        return True
    if not primitives.is_a(eqn, Kind.LINEAR):
        return roots.get(eqn.outvars[0]) is None
    moving = [
        not isinstance(v, _compat.Literal) and roots.get(v) is not None
        for v in eqn.invars
    ]
    return sum(moving) == 1 and not (primitives.is_named(eqn, "div") and moving[-1])


def _ends(block, roots):
    """Results of chains that something other than the same chain uses."""
    inner = {v for v, root in roots.items() if root not in (v, None)}
    ends = {}
    for eqn in block.eqns:
        for v in eqn.invars:
            if not isinstance(v, _compat.Literal) and v in inner:
                leaves = any(roots[out] is not roots[v] for out in eqn.outvars)
                ends.update({v: None} if leaves else {})
    if block.out_var in inner:
        ends[block.out_var] = None
    return [v for v in ends if jnp.issubdtype(_compat.dtype_of(v), jnp.inexact)]


def _chain(block, root, result):
    """The equations from the root to the result, in order."""
    needed, eqns = {result}, []
    for eqn in reversed(block.eqns):
        if any(v in needed for v in eqn.outvars):
            eqns.append(eqn)
            atoms = (v for v in eqn.invars if not isinstance(v, _compat.Literal))
            needed.update(v for v in atoms if v is not root)
    return eqns[::-1]
