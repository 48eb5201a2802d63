"""The settings of JAX under which functions are checked."""

import contextlib
import warnings

import jax

# A check evaluates f where it may not be defined, mixes dtypes that the user did not
# write, and calls f again with the same key: what raises at that in a user's session
# is no finding. Compiled, as always: other arithmetic could be another verdict.
_UNDISTURBED = (
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


@contextlib.contextmanager
def settings(*, wide: bool):
    """Exact products, no flag that makes debugging stricter, float64 if ``wide``."""
    with contextlib.ExitStack() as stack:
        for setting, value in _UNDISTURBED:
            stack.enter_context(setting(value))
        if wide:
            stack.enter_context(jax.enable_x64(True))
        else:
            # An int64 array of numpy's is as good as one of int32 to the user, too.
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Explicitly requested dtype")
        yield
