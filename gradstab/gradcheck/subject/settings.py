"""The settings of JAX under which functions are checked."""

import contextlib
import threading
import warnings
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax

from gradstab import _compat

# A check evaluates f where it may not be defined, mixes dtypes that the user did not
# write, and calls f again with the same key: what raises at that in a user's session
# is no finding. Compiled, as always: other arithmetic could be another verdict.
_UNDISTURBED: tuple[tuple[Callable[..., Any], Any], ...] = (
    (jax.debug_nans, False),
    (jax.debug_infs, False),
    (jax.enable_checks, False),
    (jax.check_tracer_leaks, False),
    (jax.debug_key_reuse, False),
    (jax.disable_jit, False),
    (jax.numpy_rank_promotion, "allow"),
    # float32 constants inside f meet float64 here.
    (jax.numpy_dtype_promotion, "standard"),
    (jax.transfer_guard, "allow"),
    (jax.default_matmul_precision, "highest"),
)


_X64 = "jax_enable_x64"
_lock, _open = threading.Lock(), []


@contextlib.contextmanager
def settings(*, wide: bool, everywhere: bool = False):
    """Exact products, no flag that makes debugging stricter, float64 if ``wide``.

    Args:
        wide: whether there is float64.
        everywhere: then in all threads. XLA calls the host from threads of its own,
            where nothing holds that was set for this one, and the host's numbers would
            be cut to float32 there.
    """
    with contextlib.ExitStack() as stack:
        for setting, value in _UNDISTURBED:
            stack.enter_context(setting(value))
        stack.enter_context(_compat.float64(wide))
        if wide:
            if everywhere:
                stack.enter_context(_wide_everywhere())
        else:
            # An int64 array of numpy's is as good as one of int32 to the user, too.
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Explicitly requested dtype")
        yield


@contextlib.contextmanager
def _wide_everywhere():
    """Float64 in all threads, until the last that asked for it has left."""
    with _lock:
        _open.append(_open[0] if _open else _in_other_threads())
        jax.config.update(_X64, True)
    try:
        yield
    finally:
        with _lock:
            before = _open.pop()
            if not _open:
                jax.config.update(_X64, before)


def _in_other_threads() -> bool:
    """Whether there is float64 where nobody has asked for it."""
    with futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: bool(jax.config.values[_X64])).result()
