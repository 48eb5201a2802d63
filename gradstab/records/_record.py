"""How a record is made: frozen, and a pytree."""

import dataclasses
import typing

import jax


def static(**options):
    """A field of a record that is not an array."""
    return dataclasses.field(metadata={"static": True}, **options)


@typing.dataclass_transform(frozen_default=True, field_specifiers=(static,))
def record(cls):
    """A frozen dataclass that is a pytree; fields made by `static` are not leaves."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)
    return jax.tree_util.register_dataclass(
        cls,
        data_fields=[f.name for f in fields if not f.metadata.get("static")],
        meta_fields=[f.name for f in fields if f.metadata.get("static")],
    )
