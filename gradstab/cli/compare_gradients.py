"""``gradstab compare-gradients``."""

import contextlib
import dataclasses
import functools
import pathlib
import typing
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradstab import _checked, _json, _tree, training, watch
from gradstab._model_options import ModelOptions
from gradstab.cli import output
from gradstab.cli.options import CompareGradients, Train, fits
from gradstab.cli.prepare import build_model, prepare
from gradstab.cli.runs import started_with
from gradstab.cli.targets import keywords
from gradstab.data import batch_plan
from gradstab.errors import UserValueError

_NAMES = ("A", "B")
_FAILING = {
    state.name.lower(): state
    for state in (watch.Sameness.DIFFERS, watch.Sameness.UNKNOWN)
}
_PRECISIONS = ("default", "high", "highest", "bfloat16", "tensorfloat32", "float32")


def run(options: CompareGradients, /) -> int:
    """Compare, print and write; returns the exit status."""
    for name in options.fail_on or ():
        _checked.one_of(name, "--fail-on", _FAILING)
    _checked.whole_number(options.batches, "--batches", least=2)
    if options.batch_size is not None:
        _checked.whole_number(options.batch_size, "--batch-size", least=1)
    if options.b is None and (options.step_a, options.with_a) == (
        options.step_b,
        options.with_b,
    ):
        raise UserValueError(
            "A and B are the same: give another run, another checkpoint (--step-b), or "
            "another configuration (--with-b dtype=bfloat16)"
        )
    path = output.prepared(options.json, overwrite=options.overwrite)
    console = output.console(quiet=options.quiet, stderr=path == output.STANDARD_OUTPUT)
    a = _side("a", options.a, options.step_a, options.with_a)
    b = _side("b", options.b or options.a, options.step_b, options.with_b)
    found = watch.compare_gradients(
        a.loss,
        a.params,
        _batches(a, options),
        other_loss=_with_keys(b, a).loss,
        other_params=b.params,
        context=a.context,
        other_context=b.context,
        names=_NAMES,
    )
    size = options.batch_size or a.started.batch_size
    made = {
        "A": a.words,
        "B": b.words,
        "batches": f"of {size}, of {a.started.data}, from step {a.step} on",
    }
    found = dataclasses.replace(found, made=made)
    found.show(console)
    if path == output.STANDARD_OUTPUT:
        print(_json.dumps(found.as_json(), indent=1))
    elif path is not None:
        found.save(path, overwrite=options.overwrite)
        console.print(f"results: {path}", soft_wrap=True, markup=False)
    failing = {_FAILING[name] for name in options.fail_on or ()}
    return int(any(layer.verdict in failing for layer in found.layers))


class _Model(NamedTuple):
    """A model in training mode, as functions of its parameters.

    Attributes:
        graph: its structure.
        params: by path.
        state: its other arrays.
    """

    graph: Any
    params: Any
    state: Any


class _Side(NamedTuple):
    """One of the two.

    Attributes:
        started: the options of the run.
        step: of the checkpoint.
        words: what it is.
        data: of the run.
        model: what is differentiated.
        of_output: ``loss(output, y)``.
        devices: that share the batch; None for one.
        context: what it runs in.
    """

    started: Train
    step: int
    words: str
    data: Any
    model: _Model
    of_output: Any
    devices: int | None
    context: Any

    @property
    def params(self):
        """The parameters by path."""
        return self.model.params

    @property
    def loss(self):
        """``loss(params, x, y, number of the batch)``."""
        return functools.partial(_loss, self.model, self.of_output, self.devices)


def _loss(model: _Model, of_output, devices, params, x, y, number):
    """The loss of a batch, whose masks are drawn with keys of its own."""
    if devices is not None:
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
        parts = NamedSharding(mesh, PartitionSpec("data"))
        x, y = (jax.lax.with_sharding_constraint(each, parts) for each in (x, y))
    state = jax.tree.map(functools.partial(_drawn, number), model.state)
    return of_output(nnx.merge(model.graph, params, state)(x), y)


def _drawn(number, leaf):
    if not _tree.is_key(leaf):
        return leaf
    keys = jax.vmap(lambda key: jax.random.fold_in(key, number))(leaf.reshape(-1))
    return keys.reshape(leaf.shape)


def _side(name: str, folder: pathlib.Path, step: int | None, changes) -> _Side:
    started = started_with(
        folder,
        instead="gradstab.compare_gradients takes it, with its loss and parameters",
    )
    option, changes = f"--with-{name}", keywords(changes or ())
    others = {n: changes.pop(n, None) for n in ("dtype", "matmul_precision", "devices")}
    task = prepare(started, aux_weight=started.aux_weight)
    steps = training.all_steps(folder)
    restored = _split(training.restore(folder, task.model, step=step))
    if changes or others["dtype"] is not None:
        changed = _changed(started, changes, option)
        built = build_model(changed, task.data, started.seed, dtype=others["dtype"])
        restored = _filled(_split(built), restored, option)
    step = max(steps) if step is None else step
    said = [f"{n}={v}" for n, v in (others | changes).items() if v is not None]
    return _Side(
        started,
        step,
        ", ".join([f"{folder} at step {step}", *said]),
        task.data,
        restored,
        task.loss,
        _devices(others["devices"], option),
        _context(others["matmul_precision"], option),
    )


def _split(model: nnx.Module) -> _Model:
    model.train()
    graph, params, state = nnx.split(model, nnx.Param, ...)
    return _Model(graph, nnx.to_pure_dict(params), nnx.to_pure_dict(state))


def _changed(started: Train, changes, option) -> Train:
    """The options with others of the model in their place."""
    kinds = typing.get_type_hints(ModelOptions)
    for name, value in changes.items():
        if name not in kinds:
            known = ", ".join(("dtype", "matmul_precision", "devices", *kinds))
            raise UserValueError(
                f"{option} {name}={value}: there is no such option; known: {known}"
            )
        if not fits(value, kinds[name]):
            raise UserValueError(
                f"{option} {name}={value!r}: expected {kinds[name]}, got "
                f"{type(value).__name__}"
            )
    return dataclasses.replace(started, **changes)


def _filled(new: _Model, restored: _Model, option) -> _Model:
    """The new structure with the arrays of the checkpoint."""
    known = _by_name(restored.params)
    wanted = _by_name(new.params)
    other = [n for n in known | wanted if _shape(known, n) != _shape(wanted, n)]
    if other:
        raise UserValueError(
            f"{option} gives a model with other parameters than the run's: {other[0]} "
            f"is {_shape(wanted, other[0])}, and {_shape(known, other[0])} in the run"
        )
    params = _taken(new.params, restored.params)
    return _Model(new.graph, params, _taken(new.state, restored.state))


def _taken(tree, others):
    """A tree with the arrays of another one where that has the same name and shape."""
    known = _by_name(others)
    leaves, structure = jax.tree.flatten(tree)
    found = []
    for name, leaf in zip(_tree.paths(tree), leaves, strict=True):
        alike = name in known and jnp.shape(known[name]) == jnp.shape(leaf)
        found.append(known[name] if alike else leaf)
    return structure.unflatten(found)


def _by_name(tree):
    return dict(zip(_tree.paths(tree), jax.tree.leaves(tree), strict=True))


def _shape(named, name):
    return jnp.shape(named[name]) if name in named else "missing"


def _with_keys(side: _Side, other: _Side) -> _Side:
    """The side with the random keys of another one, so that both draw the same."""
    keys = jax.tree.map(lambda x: x if _tree.is_key(x) else None, other.model.state)
    state = _taken(side.model.state, keys)
    return side._replace(model=side.model._replace(state=state))


def _devices(number, option) -> int | None:
    if number is None:
        return None
    return _checked.whole_number(
        number, f"{option} devices", least=1, most=jax.device_count()
    )


def _context(precision, option):
    if precision is None:
        return contextlib.nullcontext
    _checked.one_of(precision, f"{option} matmul_precision", _PRECISIONS)
    return functools.partial(jax.default_matmul_precision, precision)


def _batches(side: _Side, options: CompareGradients):
    """The batches that a run would train on next, each with its number."""
    x, y = side.data.x_train, side.data.y_train
    size = options.batch_size or side.started.batch_size
    if size > len(x):
        raise UserValueError(
            f"--batch-size {size} is more than the {len(x)} training examples"
        )
    for number in range(options.batches):
        rows = batch_plan(
            side.started.seed,
            side.step + number,
            1,
            num_examples=len(x),
            batch_size=size,
        )[0]
        yield x[rows], y[rows], jnp.int32(number)
