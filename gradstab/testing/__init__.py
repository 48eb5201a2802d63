"""The gradient checker as an assertion, for test suites."""

import importlib
from typing import TYPE_CHECKING

from gradstab.errors import UserAttributeError

if TYPE_CHECKING:
    from gradstab.testing.assertions import assert_grads as assert_grads
    from gradstab.testing.drop_in import check_grads as check_grads
    from gradstab.testing.drop_in import check_jvp as check_jvp
    from gradstab.testing.drop_in import check_vjp as check_vjp

# Loaded when first used: the pytest plugin lies here, and most test sessions that load
# it have nothing to do with JAX.
_HOMES = {
    "assert_grads": "gradstab.testing.assertions",
    "check_grads": "gradstab.testing.drop_in",
    "check_jvp": "gradstab.testing.drop_in",
    "check_vjp": "gradstab.testing.drop_in",
}


__all__ = ["assert_grads", "check_grads", "check_jvp", "check_vjp"]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise UserAttributeError(f"gradstab.testing has no {name!r}")


def __dir__():
    return __all__
