"""Parametrisations for any model: what to scale, found and applied."""

import math
from collections.abc import Callable
from typing import Any

import jax

from gradstab import _tree
from gradstab._checked import truth, whole_number
from gradstab.errors import UserTypeError, UserValueError
from gradstab.scaling import makers
from gradstab.scaling.depths import parametrize_depth
from gradstab.scaling.initial import Initial, initial_sizes
from gradstab.scaling.parametrization import ParameterScale, Parametrization, few
from gradstab.scaling.programs import (
    Described,
    are_alike,
    from_programs,
    meetings_in,
)
from gradstab.scaling.roles import Found, Role, Shapes, from_names
from gradstab.scaling.schemes import WITH_PRODUCTS, Exponents, exponents

# Widths of which a part is rounded still double; a sum with what stays does not.
_ROUND = 0.15


def parametrize(
    make: Callable[..., Any],
    /,
    *,
    base_width: int | None = None,
    base_depth: int | None = None,
    scheme: str = "mup",
    optimizer: str = "adam",
    inputs: Any = None,
    key: jax.Array | None = None,
    batched: bool = True,
) -> Any:
    r"""Find what each parameter of a model is, and how it must go with the width.

    The model is made at the base width and at twice that. Axes that differ grow with
    the width; what an operation sums over, and along what its results lie, says the
    role: *input* (from an axis that stays), *hidden* (between axes that grow), *output*
    (to an axis that stays), *vector*, *embedding*. At :math:`m` times the base width
    the standard deviation of a weight of exponent :math:`b` and its learning rate of
    exponent :math:`c` are :math:`m^b` and :math:`m^c` times those at the base width,
    where `gradstab.scaling.SCHEMES` are known. At the base width nothing changes.

    How the initialiser goes with the width by itself is measured, so that one with a
    fixed standard deviation, one of Glorot's or He's and an orthogonal one end up the
    same. With inputs, constants by which the program multiplies are found too, before
    weights or behind them, such as the root of the width behind an embedding.

    'mup' and 'spectral' want products of queries and keys divided by the size of a head
    where it grows, and not by its root: the queries take the factor if the program is
    linear from them to the product; if not, `Parametrization.notes` say by what to
    multiply, and where. They do so too of an output that is tied to the embedding. A
    parameter whose role is ambiguous is left as it is, and its note says why.

    With ``base_depth`` in place of the width ``make(depth, key)`` is a residual network
    of that depth, and scheme is 'depth-mup' (every branch times 1/sqrt(depth)) or
    'completep' (1/depth). Branches are found in the program, which adds what it
    computes of the data to them; their last weights take the factor, and the rates of
    all parameters in the blocks are those published. Where no weight scales a branch
    alone, such as behind an activation, `.notes` say what to multiply by hand. For both
    parametrisations rescale by both, and chain both transforms.

    Decoupled weight decay, whose product with the learning rate is to stay, is to come
    after ``.transform``.

    Args:
        make: ``make(width, key)`` gives a model as for `gradstab.analyze`, or a pair
            ``(apply, params)``.
        base_width: the width at which the model was tuned.
        base_depth: the depth at which it was tuned, for a parametrisation of depth.
        scheme: 'mup', 'ntk', 'mean-field', 'spectral' or 'standard'; of depth
            'depth-mup', 'completep' or 'standard'.
        optimizer: 'sgd', 'adam' (any that divides by the size of the gradient, AdamW
            and Lion among them) or 'muon' (`optax.contrib.muon` as it comes).
        inputs: one input, or a tuple of them, to trace the model with. Without it roles
            are guessed from names and shapes, and the notes say so.
        key: a PRNG key; `jax.random.key(0)` if not given.
        batched: False if the model takes one example.

    Returns:
        The parametrisation, a `gradstab.scaling.Parametrization`, of depth a
        `gradstab.scaling.DepthParametrization`: ``.make``, ``.transform``,
        ``.rescale``, ``.roles``. Cost: two initialisations, and two traces where inputs
        are given; of width, parameters of fewer than some ten thousand entries are
        drawn up to 256 times more at both widths.

    Raises:
        TypeError: ``make`` is not a function of a width and a key, or does not give a
            model.
        ValueError: for an unknown scheme or optimiser, a base width that is no whole
            number from 1; if nothing grows with the width, or the two models do not
            have the same parameters; of depth, if there is no residual branch, or no
            inputs to find one with.

    References:
        Yang et al. (2022), Tensor Programs V, table 3 and appendix B.
        Yang and Hu (2021), Tensor Programs IV, table 1.
        Yang, Simon and Bernstein (2023), A spectral condition for feature learning.
        Yang et al. (2023), Tensor Programs VI, and Dey et al. (2025), CompleteP, for
        depth.

    >>> import jax, jax.numpy as jnp, optax
    >>> import gradstab as gs
    >>> def make(width, key):
    ...     k1, k2 = jax.random.split(key)
    ...     hidden = jax.random.normal(k1, (width, width)) / jnp.sqrt(width)
    ...     head = jax.random.normal(k2, (width, 10)) / jnp.sqrt(width)
    ...     apply = lambda p, x: jnp.tanh(x @ p["hidden"]) @ p["head"]
    ...     return apply, {"hidden": hidden, "head": head}
    >>> scaled = gs.parametrize(make, base_width=32)
    >>> [(one.name, str(one.role), one.size, one.rate) for one in scaled.roles]
    [('head', 'output', -0.5, -1.0), ('hidden', 'hidden', 0.0, -1.0)]
    >>> optimizer = optax.chain(optax.adam(1e-3), scaled.transform)
    """
    truth(batched, "batched")
    if base_depth is not None:
        if base_width is not None:
            raise UserValueError(
                "give base_width or base_depth: make(size, key) has one size"
            )
        if inputs is None:
            raise UserValueError(
                "a parametrisation of depth needs inputs=, to trace the model with: "
                "branches are found in its program"
            )
        return parametrize_depth(
            make,
            list(_keys(key)),
            base_depth=whole_number(base_depth, "base_depth", least=1),
            scheme=scheme,
            optimizer=optimizer,
            inputs=inputs,
            batched=batched,
        )
    if base_width is None:
        raise UserTypeError("give base_width=, or base_depth= for a scheme of depth")
    exponents(scheme, optimizer, Role.HIDDEN)  # names are known before work begins
    whole_number(base_width, "base_width", least=1)
    keys = _keys(key)
    widths = base_width, 2 * base_width
    made = [makers.made_by(make, *pair) for pair in zip(widths, keys, strict=False)]
    params = list(map(makers.params_of, made))
    names = _names(params, widths)
    shapes = list(zip(*map(makers.shapes_of, params), strict=True))
    _expect_growth(names, shapes, widths)
    found, products, notes = _described(made, names, shapes, inputs, batched)
    wanted = [
        exponents(
            scheme,
            optimizer,
            one.role,
            is_matrix=len(shape) == 2,
            output_first=_is_output_first(one),
        )
        for one, (shape, _) in zip(found, shapes, strict=True)
    ]
    measured = initial_sizes(
        make, widths, keys[2], params, [one.size is not None for one in wanted]
    )
    roles = tuple(
        _scale(name, one, pair, target, initial, optimizer)
        for name, one, pair, target, initial in zip(
            names, _for_scheme(found, scheme), shapes, wanted, measured, strict=True
        )
    )
    notes = () if scheme == "standard" else notes
    return Parametrization(
        make,
        roles,
        (*notes, *(products if scheme in WITH_PRODUCTS else ())),
        scheme=scheme,
        optimizer=optimizer,
        base_width=base_width,
    )


def _keys(key: jax.Array | None) -> jax.Array:
    """Keys for the model at both widths, and for further draws."""
    if key is None:
        key = jax.random.key(0)
    if not hasattr(key, "dtype"):
        raise UserTypeError(
            f"key must be a PRNG key, such as jax.random.key(0); got {key!r}"
        )
    return jax.random.split(_tree.fresh_keys(key), 3)


def _names(params: list, widths: tuple[int, int]) -> list[str]:
    names, larger = map(makers.names_of, params)
    if names != larger:
        raise UserValueError(
            f"the models of width {widths[0]} and {widths[1]} differ in their "
            f"parameters: {few(sorted(set(names) ^ set(larger)))}"
        )
    return names


def _expect_growth(
    names: list[str], shapes: list[Shapes], widths: tuple[int, int]
) -> None:
    for name, (small, large) in zip(names, shapes, strict=True):
        if len(small) != len(large):
            raise UserValueError(
                f"{name} has shape {small} at width {widths[0]}, and {large} at "
                f"width {widths[1]}: as many axes are expected"
            )
        if any(a > b for a, b in zip(small, large, strict=True)):
            raise UserValueError(
                f"{name} has shape {small} at width {widths[0]}, and {large} at "
                f"width {widths[1]}: no axis may become shorter"
            )
    if all(a == b for a, b in shapes):
        raise UserValueError(
            f"no parameter differs between make({widths[0]}, key) and "
            f"make({widths[1]}, key): make must use the width"
        )


def _described(
    made: list, names: list[str], shapes: list[Shapes], inputs: Any, batched: bool
) -> Described:
    """The roles, and the notes on products of data and on other things."""
    if inputs is None:
        return _guessed(made[0], names, shapes, ())
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    targets = [makers.target_of(one, inputs, batched=batched) for one in made]
    narrow, wide = map(meetings_in, targets)
    if not are_alike(narrow, wide):
        why = "the program differs with the width: roles are guessed from the names"
        return _guessed(made[0], names, shapes, (why,))
    return from_programs(narrow, wide, shapes)


def _guessed(
    made: Any, names: list[str], shapes: list[Shapes], notes: tuple[str, ...]
) -> Described:
    found = from_names(names, shapes, output_first=makers.is_output_first(made))
    return Described(found, (), notes)


def _is_output_first(found: Found) -> bool:
    """Whether a matrix is (output, input), by which of its axes grows."""
    return found.axes == ((1,) if found.role is Role.OUTPUT else (0,))


def _for_scheme(found: list[Found], scheme: str) -> list[Found]:
    if scheme == "standard":
        return [one._replace(note="", factor=0.0, missing=0.0) for one in found]
    if scheme not in WITH_PRODUCTS:
        return [one._replace(missing=0.0) for one in found]
    return found


def _scale(
    name: str,
    found: Found,
    shapes: Shapes,
    wanted: Exponents,
    initial: Initial,
    optimizer: str,
) -> ParameterScale:
    """What is done with a parameter.

    The program multiplies it by the width to the power ``factor``, and it takes the
    power ``missing`` for a product of data. Its updates are changed by the same power,
    and its gradients too, which only SGD sees.
    """
    moved = found.missing - found.factor
    rate = wanted.rate + moved * (2 if optimizer == "sgd" else 1)
    notes = [found.note]
    size, constant, bend = found.missing, 0.0, 0.0
    if wanted.size is not None and initial.exponent is not None:
        size = wanted.size + moved - initial.exponent
        constant, bend = initial.constant, initial.bend
        notes.append(initial.note)
    if found.missing:
        notes.append(
            "takes the factor that muP wants between queries and keys, one over the "
            "size of a head and not over its root"
        )
    along, note = _along(found.axes, shapes)
    return ParameterScale(
        name,
        found.role,
        shapes[0],
        found.axes,
        size + 0.0,
        rate + 0.0,
        "; ".join(filter(None, [*notes, note])),
        along,
        constant,
        bend,
    )


def _along(axes: tuple[int, ...], shapes: Shapes) -> tuple[tuple[int, ...], str]:
    """The axes that together double with the width, and a note if none do."""
    if not axes:
        return (), ""
    ratios = makers.ratios(shapes[1], shapes[0])
    best = min(axes, key=lambda i: abs(ratios[i] - 2))
    together = math.prod(ratios[i] for i in axes)
    if abs(together - 2) < abs(ratios[best] - 2):
        return axes, ""
    if abs(ratios[best] - 2) > _ROUND:
        return (best,), (
            f"its axis {best} is {ratios[best]:.3g} times as long at twice the width; "
            "that axis is taken for the width"
        )
    return (best,), ""
