"""The settings of JAX under which functions are checked."""

import contextlib
import warnings

import jax


@contextlib.contextmanager
def settings(*, wide: bool):
    """Exact products, keys that may be used again, and float64 if ``wide``."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.default_matmul_precision("highest"))
        # Every call of f is to see the same key: that is what is checked.
        stack.enter_context(jax.debug_key_reuse(False))
        # float32 constants inside f meet float64 here; the user did not write that.
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        if wide:
            stack.enter_context(jax.enable_x64(True))
        else:
            # An int64 array of numpy's is as good as one of int32 to the user, too.
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Explicitly requested dtype")
        yield
