"""No flag that makes JAX stricter, or easier to debug, changes a verdict."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.gradcheck import Verdict, audit, check
from gradstab.testing import check_grads

pytestmark = [pytest.mark.cases, pytest.mark.usefixtures("quick_compiler")]

FLAGS = {
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "enable_checks": lambda: jax.enable_checks(True),
    "disable_jit": lambda: jax.disable_jit(True),
    "check_tracer_leaks": lambda: jax.check_tracer_leaks(True),
    "debug_key_reuse": lambda: jax.debug_key_reuse(True),
    "numpy_dtype_promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "numpy_rank_promotion": lambda: jax.numpy_rank_promotion("raise"),
    "transfer_guard": lambda: jax.transfer_guard("disallow"),
}
X = np.float32([0.1, 1.0, 2.0])
MATRIX = np.float32([[3, 1, 0], [1, 4, 2], [0.5, 0, 5]])
KEY = jax.random.key(0)


def wrong(x):
    f = jax.custom_vjp(lambda x: jnp.log(x) * x)
    f.defvjp(lambda x: (jnp.log(x) * x, x), lambda x, w: (w * jnp.log(x),))
    return f(x)


CASES = {
    "ends at zero": (jnp.log, (X,), Verdict.PASS),
    "minus infinity": (jax.nn.softplus, (-np.inf,), Verdict.INCONCLUSIVE),
    "a pole": (lambda x: 1 / x, (X,), Verdict.PASS),
    "overflows beside": (lambda x: jnp.exp(40 * x), (X,), Verdict.PASS),
    "mixes dtypes": (lambda x: np.arange(3) * x * np.float32(2), (X,), Verdict.PASS),
    "mixes ranks": (lambda x, a: a + x, (X, MATRIX), Verdict.PASS),
    "one key twice": (
        lambda x: x * jax.random.normal(KEY, (3,)) * jax.random.normal(KEY, (3,)),
        (X,),
        Verdict.PASS,
    ),
    "a loop": (
        lambda x: jax.lax.scan(lambda c, a: (jnp.sin(c + a), c), 0 * x[0], x),
        (X,),
        Verdict.PASS,
    ),
    "looks at values": (lambda x: x * 2 if x[0] > 0 else x, (X,), Verdict.PASS),
    "wrong": (wrong, (X,), Verdict.FAIL),
}
OPTIONS = {"transformations": False, "locate": False}


@pytest.mark.parametrize("name", FLAGS)
def test_no_flag_changes_a_verdict_by_itself(name):
    with FLAGS[name]():
        for case in ("ends at zero", "minus infinity"):
            f, args, verdict = CASES[case]
            assert check(f, *args, **OPTIONS).verdict is verdict, case


@pytest.mark.parametrize(
    "case",
    ["mixes ranks", "wrong"]
    + [
        pytest.param(case, marks=pytest.mark.slow)
        for case in CASES
        if case not in ("mixes ranks", "wrong")
    ],
)
def test_all_flags_together_change_no_result(case):
    f, args, verdict = CASES[case]
    plain = check(f, *args, **OPTIONS)
    with contextlib.ExitStack() as stack:
        for flag in FLAGS.values():
            stack.enter_context(flag())
        strict = check(f, *args, **OPTIONS)
    assert strict.verdict is plain.verdict is verdict
    assert strict.moved == plain.moved
    assert strict.notes == plain.notes
    assert strict.resolution == pytest.approx(plain.resolution, rel=1, abs=1e-12)


@pytest.mark.parametrize("name", ["debug_nans", "enable_checks"])
def test_no_flag_stops_a_test_suite(name):
    with FLAGS[name]():
        check_grads(jnp.log, (X,), 1, transformations=False)
        with pytest.raises(AssertionError, match="wrong reverse derivative"):
            check_grads(wrong, (X,), 1, **OPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["debug_nans", "disable_jit", "transfer_guard"])
def test_all_laws_second_order_and_places_do_without_flags(name):
    square = jax.custom_vjp(lambda x: jnp.log(x) ** 2)
    square.defvjp(
        lambda x: (jnp.log(x) ** 2, x), lambda x, w: (2 * w * jnp.log(x) / x,)
    )
    with FLAGS[name]():
        assert check(square, X, order=2).verdict is Verdict.PASS
        assert check(square, X, exhaustive=True).verdict is Verdict.PASS
        assert check(wrong, X).locations


@pytest.mark.parametrize("name", ["debug_nans", "disable_jit"])
def test_no_flag_hides_a_rule_from_an_audit(name):
    with FLAGS[name]():
        result = audit(lambda x: wrong(x).sum(), X)
    assert result.verdict is Verdict.FAIL
