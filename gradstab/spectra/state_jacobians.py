"""The Jacobians of a recurrent scan's state map, and its exponents along time.

A step maps the state before it to the state after it. The product of all steps is as
long as the sequence: its singular values grow and fall exponentially. Their logarithms
per step tend to the Lyapunov exponents, which are found without their bias.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gradstab import _compat, _tree
from gradstab.network.foreign import can_be_traced, limited
from gradstab.network.recurrence import RecurrentScan, Trajectory
from gradstab.program.compiled import compiled
from gradstab.spectra.coupling import mixes_examples
from gradstab.spectra.dense import dense_jacobian
from gradstab.spectra.exponents import Exponents, exponents
from gradstab.spectra.golub_kahan import two_way
from gradstab.spectra.linear_map import LinearMap, jacobian_map, packing
from gradstab.spectra.lyapunov import Lyapunov, lyapunov

# States up to this size have all their exponents found, larger ones the leading ones.
_MOST_EXPONENTS = 256
_LEADING = 16

# Beyond this many entries not even those are: forty vectors go through every step,
# three times.
_MOST_ENTRIES = 2**16

# Steps times entries cubed times examples: five seconds on a core.
_MOST_WORK = 2**31

# Jacobians held at once; if not all fit, each sweep computes them again.
_MOST_BYTES = 2**28


class StateJacobians(Sequence):
    """The state Jacobians step by step, each ``(examples, size, size)``.

    Args:
        scan: the recurrent scan.
        path: from `follow_state`.
        joint: whether a state is that of the whole batch.
        keep: for how many examples.
        size: real numbers in a state.
        chunk: how many steps are computed and held at once; by default as many as fit
            into 256 MiB.
    """

    def __init__(
        self,
        scan: RecurrentScan,
        path: Trajectory,
        /,
        *,
        joint: bool,
        keep: int,
        size: int,
        chunk: int | None = None,
    ):
        """Compute nothing yet."""
        wide = _tree.widest(*(_tree.real_dtype(part.dtype) for part in path.after))
        each = keep * size**2 * wide.itemsize
        fitting = max(_MOST_BYTES // each, 1) if chunk is None else chunk
        self._chunk = min(fitting, scan.parts.length)
        self._length, self._path = scan.parts.length, path
        self._run = compiled(scan, _jacobians, joint, keep)
        self._start, self._held = -1, None

    def __len__(self):
        """The number of steps."""
        return self._length

    def __getitem__(self, step) -> Any:
        """The Jacobians of one step, counted in time."""
        step = range(self._length)[step]
        start = min(step // self._chunk * self._chunk, self._length - self._chunk)
        if start != self._start or self._held is None:
            along = slice(start, start + self._chunk)
            path = self._path
            moving = (path.carries, path.xs, path.before)
            moving = jax.tree.map(lambda array: array[along], moving)
            self._held, self._start = self._run(path.consts, *moving), start
        return self._held[step - start]


class StateMaps(Sequence):
    """The same as linear maps, of all examples: for states too large to write out."""

    def __init__(
        self, scan: RecurrentScan, path: Trajectory, /, *, joint: bool, size: int
    ):
        """Compute nothing yet."""
        num = 1 if joint else path.after[0].shape[1]
        self._scan, self._path = scan, path
        self._form = {"num": num, "shape": (size, size)}
        self._push = compiled(scan, _push, joint)
        self._pull = compiled(scan, _pull, joint)

    def __len__(self):
        """The number of steps."""
        return self._scan.parts.length

    def __getitem__(self, step) -> Any:
        """The linear map of one step, counted in time."""
        step = range(len(self))[step]
        here = self._path.operands(step), state_before(self._path, step)
        forward = functools.partial(self._push, *here)
        backward = functools.partial(self._pull, *here)
        known = forward if _has_forward(self._scan) else None
        return LinearMap(known, backward, **self._form)

    @property
    def one_way(self) -> bool:
        """Whether rules in the step allow no products with vectors in both ways."""
        if not any(map(limited, self._scan.body.jaxpr.eqns)):
            return False
        num, size = self._form["num"], self._form["shape"][0]
        vectors = jax.ShapeDtypeStruct((num, size, 1), np.float32)

        def product(vectors, way):
            return jax.vmap(two_way(self[0])[way], in_axes=2, out_axes=2)(vectors)

        ways = (functools.partial(product, way=way) for way in (0, 1))
        return not all(can_be_traced(way, vectors) for way in ways)


class TimeExponents(NamedTuple):
    """The exponents of a state map.

    Attributes:
        lyapunov: of an orbit without end, with the error of its length.
        finite: of the product of the steps that were run.
    """

    lyapunov: Lyapunov
    finite: Exponents


def exponents_along_time(
    scan: RecurrentScan,
    path: Trajectory,
    /,
    *,
    joint,
    keep: int,
    size: int,
    spectra_on: str = "auto",
) -> TimeExponents:
    r"""The Lyapunov spectrum of a state map, and that of the steps that were run.

    .. math:: \lambda_i = \lim_{T \to \infty} \frac{1}{T} \ln \sigma_i(J_T \cdots J_1)

    Args:
        scan: the recurrent scan.
        path: from `follow_state`.
        joint: whether a state is that of the whole batch.
        keep: for how many examples, at most.
        size: real numbers in a state.
        spectra_on: where bases are made orthonormal, see `exponents`.

    Returns:
        ``(examples, size)`` exponents per time step in descending order if the size is
        at most 256, the leading 16 of them if it is at most 65536, none of larger ones
        or where a rule allows products backward only and the Jacobians take over 256
        MiB.
        All steps count, however many Jacobians a report shows. Memory: 256 MiB of
        Jacobians. Cost: :math:`O(T n^3)` per example and sweep, and ``n`` products of
        each step with a tangent; so of long sequences of large states fewer examples
        are followed, at least one: four of 100 steps and 170 entries.

    References:
        See `lyapunov` and `exponents`; Engelken et al. (2023), Lyapunov spectra of
        chaotic recurrent neural networks.
    """
    if size <= _MOST_EXPONENTS:
        keep = max(min(keep, _MOST_WORK // (scan.parts.length * size**3)), 1)
        steps = StateJacobians(scan, path, joint=joint, keep=keep, size=size)
        return TimeExponents(
            lyapunov(steps, num_values=size, spectra_on=spectra_on),
            exponents(steps, spectra_on=spectra_on),
        )
    if size > _MOST_ENTRIES:
        return _none(keep)
    steps = StateMaps(scan, path, joint=joint, size=size)
    if steps.one_way:
        if keep * size**2 * 8 > _MOST_BYTES:
            return _none(keep)
        steps = StateJacobians(scan, path, joint=joint, keep=keep, size=size)
    endless = lyapunov(steps, num_values=_LEADING, spectra_on=spectra_on)
    finite = exponents(steps, top_k=_LEADING, spectra_on=spectra_on)
    return TimeExponents(
        Lyapunov(endless.values[:keep], endless.errors[:keep]),
        Exponents(finite.values[:keep], finite.errors[:keep]),
    )


def _none(keep: int):
    none = np.zeros((keep, 0))
    return TimeExponents(Lyapunov(none, none), Exponents(none, none))


def state_before(path: Trajectory, step, /):
    """The parts of the state that enter a step."""
    return tuple(part[step] for part in path.before)


def couples(
    scan: RecurrentScan, operands: Sequence[Any], state: Sequence[jax.Array], /
):
    """Whether a step mixes examples."""
    return mixes_examples(_step(scan, operands, state[0].shape[0]), state)


def _step(scan: RecurrentScan, operands: Sequence[Any], num: int):
    """One step as a function of the state alone: its parts in, one array out."""

    def step(*state):
        after = scan.step(operands, state)
        return packing(after, num)[0](after)

    return step


def _has_forward(scan: RecurrentScan):
    return not any(_compat.backward_only(eqn) for eqn in scan.body.jaxpr.eqns)


def _linear(
    scan: RecurrentScan,
    joint: bool,
    operands: Sequence[Any],
    state: Sequence[jax.Array],
):
    num = 1 if joint else state[0].shape[0]
    step = _step(scan, operands, num)
    return jacobian_map(step, state, coupled=joint, forward=_has_forward(scan))


def _jacobians(
    scan: RecurrentScan, joint: bool, keep: int, consts, carries, xs, before
):
    def one(slices):
        carries, xs, state = slices
        linear = _linear(scan, joint, (consts, carries, xs), state)
        return dense_jacobian(linear, num_examples=keep)

    return jax.lax.map(one, (carries, xs, before))


def _push(
    scan: RecurrentScan,
    joint: bool,
    operands: Sequence[Any],
    state: Sequence[jax.Array],
    v,
):
    matvec = _linear(scan, joint, operands, state).matvec
    assert matvec is not None
    return matvec(v)


def _pull(
    scan: RecurrentScan,
    joint: bool,
    operands: Sequence[Any],
    state: Sequence[jax.Array],
    w,
):
    return _linear(scan, joint, operands, state).rmatvec(w)
