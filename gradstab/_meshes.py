"""Arrays over meshes of devices, and programs of one device each: `jax.shard_map`.

For `_compat` only, through which all other rooms read programs. Inside of a shard_map
the type of an array says along which axes of the mesh it varies from device to device,
if it checks that (``check_vma``): an attribute ``vma`` up to jax 0.10.1, from then on
the attribute ``varying`` of ``mat``. Where the axes of a mesh are explicit, types say
how arrays are laid out, and operations refuse what would need another layout.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, JaxprEqn
from jax.sharding import AxisType, NamedSharding, PartitionSpec


class ShardMapParts(NamedTuple):
    """What a shard_map equation holds, as `jax.shard_map` takes it."""

    body: Any  # shards of the operands -> shards of the results
    mesh: Any
    in_specs: tuple
    out_specs: tuple
    axis_names: frozenset
    check_vma: bool

    @property
    def manual_axes(self) -> tuple[str, ...]:
        """The axes over which the body is one program for each device, in order."""
        return tuple(a for a in self.mesh.axis_names if a in self.axis_names)


def shard_map_parts(eqn: JaxprEqn, /) -> ShardMapParts | None:
    """The parts of a shard_map equation; None for any other equation."""
    if eqn.primitive.name != "shard_map":
        return None
    p = eqn.params
    return ShardMapParts(
        ClosedJaxpr(p["jaxpr"], ()),
        p["mesh"],
        tuple(p["in_specs"]),
        tuple(p["out_specs"]),
        frozenset(p["newly_manual_axes"]),
        p["check_vma"],
    )


def varying(variable, /) -> frozenset:
    """The axes of a mesh along which the type of a variable or an array varies."""
    aval = variable.aval if hasattr(variable, "aval") else jax.typeof(variable)
    kind = getattr(aval, "mat", None)
    found = getattr(aval, "vma", None) if kind is None else kind.varying
    return frozenset(found or ())


def varied(x, axes, /):
    """The same numbers, of the type that varies along these axes too."""
    missing = tuple(axis for axis in axes if axis not in varying(x))
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def laid_out(x, mesh, spec: PartitionSpec, /):
    """An array as a shard_map over a mesh with explicit axes wants its operand."""
    explicit = any(kind is AxisType.Explicit for kind in mesh.axis_types)
    return jax.sharding.reshard(x, NamedSharding(mesh, spec)) if explicit else x


def plain_shape(x, /):
    """Shape and dtype of an array whose type says how it is laid out; else itself.

    That of a device's own part inside of a `jax.shard_map` says along which axes of the
    mesh it varies: a program read by such types would need all that it casts.
    """
    plain = isinstance(x, jax.ShapeDtypeStruct) or not (_explicit_axes() or varying(x))
    return x if plain else jax.ShapeDtypeStruct(x.shape, x.dtype)


def on_one_layout(function: Callable, /) -> Callable:
    """A function whose results have the same numbers on every device.

    Where axes are explicit the compiler lays out what is in between, as it does where
    they are automatic.
    """

    def run(*args):
        axes = _explicit_axes()
        if not axes:
            return function(*args)
        return jax.sharding.auto_axes(
            function, axes=axes, out_sharding=PartitionSpec()
        )(*args)

    return run


def _explicit_axes() -> tuple[str, ...]:
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types or (), strict=False)
    return tuple(axis for axis, kind in kinds if kind is AxisType.Explicit)
