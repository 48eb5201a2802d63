"""Other integers and masks for the arguments of a function.

A rule may be right for indices that do not repeat, for masks that let all through, and
for lengths that are those of the arrays; these are the ones that tests have.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _tree

# Among so many entries one of a mask is turned where turning half of them is too much.
_FEW = 8


def other_integers(
    args: tuple, rng: np.random.Generator, /, *, counts: bool
) -> Iterator[tuple]:
    """The arguments with other integers, masks and counts: fewer things at a time.

    Integers are drawn, with repetitions, from those that the array has, and from those
    between zero and the largest of them, zero among them: whatever they count or point
    at is there. Where they rise, they do not fall. Half of the entries of a mask are
    turned, and no row of it is left empty. A single integer, if it is an array's or the
    length of one, is halved.

    Args:
        args: pytrees of anything.
        rng: draws them.
        counts: whether single integers are varied too.

    Yields:
        Arguments in which everything is changed; then with no integers that the array
        has not; then with the single integers as they were, and few entries of masks
        turned.
    """
    plans = [(True, 2, True), (True, 2, False), (False, 2, False), (False, _FEW, False)]
    plans = plans if counts else [(False, 2, True), (False, 2, False)]
    done, lengths = [], {n for x in jax.tree.leaves(args) for n in np.shape(x)}
    for halved, of, others in plans:
        changed = []
        draw = rng.spawn(1)[0]

        def other(
            leaf: Any,
            halved=halved,
            of=of,
            others=others,
            changed=changed,
            draw=draw,
        ):
            counts = halved and (_is_array(leaf) or leaf in lengths)
            new = _other(leaf, draw, halved=counts, of=of, others=others)
            changed.append(None if new is None else np.asarray(new).tolist())
            return leaf if new is None else new

        varied = jax.tree.map(other, args)
        if any(c is not None for c in changed) and changed not in done:
            done.append(changed)
            yield varied


def not_varied(args: tuple, /, *, all_kept: bool) -> list[str]:
    """The masks and integers that have one form of several, in words.

    Args:
        args: pytrees of anything.
        all_kept: whether none was varied; else those only that could not be.
    """
    words = []
    for i, arg in enumerate(args):
        leaves = zip(_tree.paths(arg), jax.tree.leaves(arg), strict=True)
        for path, leaf in leaves:
            if (what := _what(leaf)) and (all_kept or _only(leaf)):
                words.append(f"{f'args[{i}].{path}'.rstrip('.')} ({what})")
    return words


def _other(leaf: Any, rng: np.random.Generator, *, halved, of, others):
    """What is to be put in the place of a leaf; None if it stays."""
    if _is_mask(leaf):
        return _like(leaf, _turned(np.asarray(leaf), rng, of=of))
    if _is_indices(leaf):
        new = _drawn(np.asarray(leaf), rng, others=others)
        return None if new is None else _like(leaf, new)
    if halved and _is_count(leaf) and int(leaf) > 1:
        half = int(leaf) // 2
        return half if isinstance(leaf, int) else _like(leaf, np.asarray(half))
    return None


def _turned(mask, rng: np.random.Generator, *, of):
    turned = rng.permutation(mask.size).reshape(mask.shape) < max(1, mask.size // of)
    new = mask ^ turned
    if new.ndim > 1 or new.size > 1:
        empty = ~np.any(new, axis=-1)
        rows = np.any(mask, axis=-1) & empty
        new = np.where(rows[..., None], mask, new)
    return new


def _drawn(values, rng: np.random.Generator, *, others=False):
    """Integers drawn from those of an array, so that one of them repeats.

    If ``others``, also those that it has not, of which zero is one.
    """
    known = np.unique(values)
    if len(known) == 1:
        # All labels, or lengths, alike: nothing is known but that they may be less.
        low = known[0] // 2
        if known[0] < 1:
            return None
        known = np.arange(low, known[0] + 1)
    flat = values.ravel()
    drawn = rng.choice(known, flat.size)
    if flat.size > 1:
        drawn[0] = drawn[-1]
    if flat.size > 1 and np.all(np.diff(flat) >= 0):
        drawn[0], drawn[-1] = known[0], known[-1]
        drawn = np.sort(drawn)
        if len(np.unique(drawn)) == drawn.size:
            drawn[drawn.size // 2] = drawn[drawn.size // 2 - 1]
    elif others and flat.size > 1 and known[0] >= 0:
        new = rng.integers(0, known[-1] + 1, flat.size)
        drawn = np.where(rng.permutation(flat.size) % 3 == 0, new, drawn)
        drawn[flat.size // 2] = 0
        drawn[0] = drawn[-1]
    if np.array_equal(drawn, flat):
        drawn = np.roll(drawn, 1)
    return None if np.array_equal(drawn, flat) else drawn.reshape(values.shape)


def _what(leaf: Any) -> str:
    if _is_mask(leaf):
        mask = np.asarray(leaf)
        alike = "all true" if mask.all() else "" if mask.any() else "all false"
        return f"mask, {alike}" if alike else "mask"
    if _is_indices(leaf):
        values = np.asarray(leaf)
        repeats = len(np.unique(values)) < values.size
        return "integers" if repeats else "integers without duplicates"
    return "a count" if _is_count(leaf) and not isinstance(leaf, int) else ""


def _only(leaf: Any) -> bool:
    """Whether a leaf is never varied."""
    if _is_indices(leaf):
        return _drawn(np.asarray(leaf), np.random.default_rng(0)) is None
    return _is_count(leaf) and int(leaf) < 2


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray | np.generic | jax.Array) and not _tree.is_key(
        leaf
    )


def _is_mask(leaf: Any) -> bool:
    return _is_array(leaf) and leaf.dtype == bool and leaf.ndim > 0 and leaf.size > 0


def _is_indices(leaf: Any) -> bool:
    whole = _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.integer)
    # Two words of 32 bits are the key of a generator.
    key = whole and leaf.dtype == np.uint32 and leaf.shape[-1:] == (2,)
    return whole and not key and leaf.ndim > 0 and leaf.size > 0


def _is_count(leaf: Any) -> bool:
    if isinstance(leaf, bool):
        return False
    if isinstance(leaf, int):
        return True
    whole = _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.integer)
    return whole and leaf.ndim == 0


def _like(leaf: Any, values):
    """The values as the kind of array that a leaf is."""
    new = np.asarray(values).astype(leaf.dtype)
    if isinstance(leaf, jax.Array):
        return jnp.asarray(new)
    return new[()] if isinstance(leaf, np.generic) else new
