"""Coordinate checks: the same few steps of training at several sizes."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax

from gradstab import _checked, _tree
from gradstab.errors import UserTypeError, UserValueError, call_of_user
from gradstab.scaling import makers, store
from gradstab.scaling.coordinates import Transfer
from gradstab.scaling.measuring import Measured, Subject, run_trial, subject_of
from gradstab.scaling.progress import progress_bar
from gradstab.scaling.roles import Role, from_uses
from gradstab.scaling.rows import Matched, matched

_VARIED = ("width", "depth", "batch")
_OF_LAYERS = ("activation", "update", "gradient", "added")
_OF_ROWS = ("weight", "change", "entering", "gain", "own", "passed")


def transfer(
    make: Callable[..., Any],
    inputs: Any,
    /,
    *,
    widths: Sequence[int] = (64, 128, 256, 512),
    loss: Callable[..., Any],
    optimizer: Any,
    steps: int = 4,
    seeds: int = 3,
    vary: str = "width",
    output: Callable[..., Any] | None = None,
    batched: bool = True,
    key: jax.Array | None = None,
    folder: Any = None,
    progress: bool = True,
) -> Transfer:
    r"""Does what is tuned at one size hold at others? A coordinate check with verdicts.

    At every size and for every seed the model is initialised and trained for a few
    steps on the same batch. After 0, 1, 2, ... steps the root mean squares of what
    every layer gives out, of its change on the same inputs, and of the gradient are
    measured, and for every parameter what its own update does to the data that it
    meets. The slope of their logarithms against that of the size, by least squares over
    all seeds, has a standard error; a layer is *flat* if the 95 % interval lies within
    :math:`\pm 0.25`, *grows* or *shrinks* if it does not hold zero and the slope is as
    large as that, and else the verdict is *cannot tell*, with the number of seeds that
    would settle it.

    Over depth ``.schemes`` says which parametrisation the residual blocks have, by what
    a block adds and what its updates do to that, and ``.blocks`` by which powers.

    Learning rates are best chosen small: theory, and the names of parametrisations in
    ``.schemes``, are of the first step of a small one.

    Args:
        make: ``make(width, key)`` gives a model as for `gradstab.analyze`, or a pair
            ``(apply, params)``; of any framework. Over depth it is called with the
            depth, over batch sizes with the batch size.
        inputs: one input, or a tuple of them, with examples on the leading axis.
        widths: the sizes, at least two; over batch sizes the first so many examples are
            taken, and a loss that holds labels must take as many of them.
        loss: ``loss(output) -> scalar``, on the whole output.
        optimizer: an optax transformation, or a function of the size that gives one.
        steps: of training.
        seeds: initialisations at each size.
        vary: 'width', 'depth' or 'batch'.
        output: selects the differentiated array, see `gradstab.analyze`.
        batched: False if the model takes one example.
        key: a PRNG key; `jax.random.key(0)` if not given.
        folder: a folder in which every finished run is kept; with the same folder the
            check goes on where it was interrupted.
        progress: whether to show how far it is.

    Returns:
        The check: ``.layers``, ``.parameters``, ``.verdict``, ``.causes``,
        ``.schemes``; ``.show()``, ``.plot()``, ``.save(path)``. Cost: a gradient and
        two evaluations for each step, seed and size; one compilation for each size, and
        nothing that depends on the seed or, but for its own step, on the optimiser.

    Raises:
        ValueError: for sizes, steps or seeds that make no slope; if the models have no
            layers in common, or the folder holds another check.
        TypeError: if ``optimizer`` is no optax transformation.

    References:
        Yang et al. (2022), Tensor Programs V, appendix D.1: the coordinate check.

    >>> import jax, jax.numpy as jnp, optax
    >>> import gradstab as gs
    >>> def make(width, key):
    ...     keys = jax.random.split(key)
    ...     params = {
    ...         "hidden": jax.random.normal(keys[0], (8, width)) / 8**0.5,
    ...         "head": jax.random.normal(keys[1], (width, 1)) / width,
    ...     }
    ...     return lambda p, x: jnp.tanh(x @ p["hidden"]) @ p["head"], params
    >>> found = gs.transfer(
    ...     make,
    ...     jnp.eye(8),
    ...     widths=(32, 64, 128),
    ...     loss=lambda y: jnp.mean((y - 1) ** 2),
    ...     optimizer=optax.adam(1e-4),
    ...     steps=1,
    ...     progress=False,
    ... )
    >>> str(found.parameter("head").verdict)  # n aligned terms, one rate for all widths
    'grows'
    """
    sizes = _sizes(widths)
    steps = _checked.whole_number(steps, "steps", least=1)
    seeds = _checked.whole_number(seeds, "seeds", least=1)
    if vary not in _VARIED:
        raise UserValueError(f"vary must be one of {', '.join(_VARIED)}: {vary!r}")
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    key = jax.random.key(0) if key is None else key
    rows, results = [], []
    with progress_bar(progress, len(sizes) * seeds) as advance:
        kept = store.Trials(None, {})
        for number, size in enumerate(sizes):
            given = _first(inputs, size) if vary == "batch" else inputs
            options = output, batched, vary == "depth"
            run = _Size(make, given, size, options, optimizer, loss, steps)
            if folder is not None and number == 0:
                settings = _settings(sizes, steps, vary, key)
                kept = store.Trials(folder, settings | run.fingerprints(key))
            found = []
            for seed in range(seeds):
                own = jax.random.fold_in(jax.random.fold_in(key, number), seed)
                advance(f"{vary} {size}, seed {seed + 1}")
                measure = functools.partial(run.measure, own)
                found.append(kept.get(size, seed, measure))
            results.append(found)
            if number in (0, len(sizes) - 1):
                rows.append(run.subject(key))
    return _gathered(sizes, vary, rows, results)


class _Size:
    """The runs at one size; what does not depend on the seed is made once."""

    def __init__(
        self,
        make: Callable[..., Any],
        inputs: tuple,
        size: int,
        options: tuple[Callable[..., Any] | None, bool, bool],
        optimizer: Any,
        loss: Callable[..., Any],
        steps: int,
    ) -> None:
        self._make, self._inputs, self._size = make, inputs, size
        self._output, self._batched, self._in_blocks = options
        self._loss, self._steps = loss, steps
        self._optimizer = _as_optimizer(optimizer, size)
        self._step = jax.jit(self._stepped)
        self._subject: Subject | None = None

    def subject(self, key: jax.Array) -> Subject:
        """Layers and parameters, of any initialisation."""
        if self._subject is None:
            self._subject = self._found(self._target(key))
        return self._subject

    def fingerprints(self, key: jax.Array) -> dict[str, str]:
        """What the runs depend on beside the sizes, each as a digest."""
        target = self._target(jax.random.fold_in(key, len(_VARIED)))
        subject = self._subject = self._found(target)
        memory = call_of_user(self._optimizer.init, target.params)
        step = jax.make_jaxpr(self._stepped)(target.params, memory, target.params)
        shapes = subject.network.program.output_shapes
        loss = jax.make_jaxpr(lambda output: call_of_user(self._loss, output))(shapes)
        return {
            "model": store.digest(subject.network.program.closed),
            "inputs": store.digest(inputs=target.inputs),
            "loss": store.digest(loss),
            "optimizer": store.digest(step),
        }

    def measure(self, key: jax.Array) -> Measured:
        """Train one initialisation."""
        target = self._target(key)
        subject = self._found(target)
        self._subject = subject
        memory = call_of_user(self._optimizer.init, target.params)
        return run_trial(subject, target, self._step, memory, self._loss, self._steps)

    def _found(self, target: Any) -> Subject:
        return subject_of(target, self._output, in_blocks=self._in_blocks)

    def _target(self, key: jax.Array) -> Any:
        made = makers.made_by(self._make, self._size, key)
        return makers.target_of(made, self._inputs, batched=self._batched)

    def _stepped(self, gradients: Any, memory: Any, params: Any) -> tuple:
        given = (gradients, memory, params)
        with jax.numpy_dtype_promotion("standard"):  # which optax counts on
            updates, memory = call_of_user(self._optimizer.update, *given)
            return optax.apply_updates(params, updates), memory


def _sizes(widths: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(_checked.whole_number(w, "a width", least=1) for w in widths)
    if len(set(sizes)) < 2 or list(sizes) != sorted(set(sizes)):
        raise UserValueError(
            f"widths must be at least two, each larger than the one before: {widths!r}"
        )
    return sizes


def _as_optimizer(optimizer: Any, size: int) -> optax.GradientTransformation:
    made: Any = optimizer
    if callable(optimizer) and not hasattr(optimizer, "update"):
        made = call_of_user(optimizer, size)
    if not (hasattr(made, "init") and hasattr(made, "update")):
        raise UserTypeError(
            "optimizer must be an optax transformation, or a function of the width "
            f"that gives one; got a {type(made).__name__}"
        )
    return made


def _first(inputs: tuple, size: int) -> tuple:
    """The first so many examples."""

    def cut(leaf: Any) -> Any:
        if _tree.is_key(leaf):
            return leaf
        if len(leaf) < size:
            raise UserValueError(
                f"inputs have {len(leaf)} examples, and a batch is to have {size}"
            )
        return leaf[:size]

    return jax.tree.map(cut, inputs)


def _settings(
    sizes: tuple[int, ...], steps: int, vary: str, key: jax.Array
) -> dict[str, Any]:
    data = np.asarray(jax.random.key_data(key)).ravel().tolist()
    kept = {"sizes": list(sizes), "steps": steps, "vary": vary, "key": data}
    return kept | {"schema": store.SCHEMAS[store.KIND]}


def _gathered(
    sizes: tuple[int, ...],
    vary: str,
    ends: Sequence[Subject],
    results: list[list[Measured]],
) -> Transfer:
    """The trials as one record, with the rows that all sizes share."""
    layers = matched([found[0].layers for found in results], sizes)
    rows = matched([found[0].parameters for found in results], sizes)
    roles, notes = _roles(ends, rows, vary)
    trials = [[one.trial for one in found] for found in results]

    def stacked(name: str, of: Matched | None) -> np.ndarray:
        each = [
            np.stack([np.asarray(getattr(trial, name)) for trial in found])
            for found in trials
        ]
        if of is not None:
            each = [of.of(i, values) for i, values in enumerate(each)]
        return np.stack(each)

    of_layers = {name: stacked(name, layers) for name in _OF_LAYERS}
    of_rows = {name: stacked(name, rows) for name in _OF_ROWS}
    return Transfer(
        **of_layers,
        **of_rows,
        loss=stacked("loss", None),
        normalises=all(one.normalises for found in results for one in found),
        sizes=sizes,
        vary=vary,
        layer_names=layers.names,
        parameter_names=rows.names,
        roles=roles,
        matrices=_matrices(ends[0], rows, vary),
        notes=notes,
    )


def _roles(
    ends: Sequence[Subject], rows: Matched, vary: str
) -> tuple[tuple[Role, ...], tuple[str, ...]]:
    """What each row is, from the smallest and the largest model."""
    unknown = (Role.AMBIGUOUS,) * len(rows.names)
    if vary != "width":
        return (Role.FIXED,) * len(rows.names), ()
    uses = [[row.use for row in end.rows] for end in ends]
    if len(uses[0]) != len(uses[1]):
        return unknown, ("the program differs with the width: roles are not known",)
    shapes = [makers.shapes_of(end.target.params) for end in ends]
    pairs = list(zip(*shapes, strict=True))
    # Each row by itself: a tied embedding has one where it is looked up, and one where
    # it is multiplied with.
    found = [
        from_uses([small], [large], pairs)[small.leaves[0]].role
        for small, large in zip(*uses, strict=True)
    ]
    return tuple(found), ()


def _matrices(end: Subject, rows: Matched, vary: str) -> tuple[bool, ...]:
    leaves = jax.tree.leaves(end.target.params)
    uses = [row.use for row in end.rows]
    if vary == "depth":  # slices of a stack have an axis more
        return tuple(uses[own[0]].kind == "product" for own in rows.members[0])
    return tuple(
        max(leaves[i].ndim for i in uses[own[0]].leaves) == 2 for own in rows.members[0]
    )
