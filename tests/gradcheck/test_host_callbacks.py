"""Functions and rules that call the host: in float64 if it can, else in their own."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from gradstab.gradcheck import Verdict, audit, check
from gradstab.testing import check_grads

pytestmark = [pytest.mark.cases, pytest.mark.usefixtures("quick_compiler")]

OPTIONS = {"transformations": False, "locate": False, "at": "given"}


def as_given(a):
    return np.sin(np.asarray(a))


def always_float32(a):
    """What code in C or Fortran often is."""
    return np.sin(np.asarray(a, np.float32))


def refuses_float64(a):
    a = np.asarray(a)
    if a.dtype != np.float32:
        raise TypeError("expected single precision")
    return np.sin(a)


def called(host, x, **how):
    return jax.pure_callback(host, jax.ShapeDtypeStruct(x.shape, x.dtype), x, **how)


def with_jvp(host, factor=1.0, **how):
    f = jax.custom_jvp(lambda x: called(host, x, **how))
    f.defjvp(lambda p, t: (f(*p), factor * jnp.cos(p[0]) * t[0]))
    return f


def with_vjp(host, factor=1.0, **how):
    f = jax.custom_vjp(lambda x: called(host, x, **how))
    f.defvjp(lambda x: (f(x), x), lambda x, w: (factor * w * jnp.cos(x),))
    return f


def by_io(host, factor=1.0, **how):
    del how

    def value(x):
        return io_callback(host, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    f = jax.custom_vjp(value)
    f.defvjp(lambda x: (f(x), x), lambda x, w: (factor * w * jnp.cos(x),))
    return f


def rule_on_the_host(host, factor=1.0, **how):
    """Its value is JAX's own; only its derivative asks the host."""

    def cosine(x):
        return called(host, x + jnp.pi / 2, **how)

    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda x: (f(x), x), lambda x, w: (factor * w * cosine(x),))
    return f


def jvp_on_the_host(host, factor=1.0, **how):
    f = jax.custom_jvp(jnp.sin)
    f.defjvp(
        lambda p, t: (f(*p), factor * t[0] * called(host, p[0] + jnp.pi / 2, **how))
    )
    return f


MAKERS = [with_jvp, with_vjp, by_io, rule_on_the_host, jvp_on_the_host]
FULL = {"vmap_method": "expand_dims"}


def points(size):
    return np.linspace(0, 1, size).astype(np.float32)


@pytest.mark.parametrize("size", [3, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", MAKERS)
def test_a_host_that_returns_float32_is_checked_in_float32(make, size):
    how = FULL if make is not jvp_on_the_host else {"vmap_method": "sequential"}
    result = check(make(always_float32, **how), points(size), **OPTIONS)
    assert result.verdict is Verdict.PASS, str(result)
    assert result.precision == "float32"
    assert "the host does not compute in float64" in result.notes[0]


@pytest.mark.parametrize(
    "make", [with_jvp, pytest.param(with_vjp, marks=pytest.mark.slow)]
)
def test_a_host_that_refuses_float64_is_checked_in_float32(make):
    result = check(make(refuses_float64, **FULL), points(300), **OPTIONS)
    assert result.verdict is Verdict.PASS, str(result)
    assert "expected single precision" in result.notes[0]


@pytest.mark.parametrize(
    ("make", "how"),
    [
        (with_jvp, {"vmap_method": "sequential"}),
        (with_vjp, FULL),
        pytest.param(with_vjp, {}, marks=pytest.mark.slow),
        pytest.param(by_io, {}, marks=pytest.mark.slow),
        (rule_on_the_host, {"vmap_method": "broadcast_all"}),
    ],
)
@pytest.mark.parametrize("size", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_a_host_that_follows_the_dtype_is_checked_in_float64_at_any_size(
    make, how, size
):
    result = check(make(as_given, **how), points(size), **OPTIONS)
    assert result.verdict is Verdict.PASS, str(result)
    assert result.precision == "float64"


@pytest.mark.parametrize("host", [as_given, always_float32])
@pytest.mark.parametrize("make", [with_jvp, rule_on_the_host])
def test_wrong_rules_around_the_host_fail_in_either_precision(make, host):
    f = make(host, 1.05, vmap_method="sequential")
    assert check(f, points(300), **OPTIONS).verdict is Verdict.FAIL


def test_other_threads_have_no_float64_afterwards():
    check(with_jvp(as_given, **FULL), points(300), **OPTIONS)
    check(with_jvp(always_float32, **FULL), points(3), **OPTIONS)
    found = []
    thread = threading.Thread(
        target=lambda: found.append(jax.config.jax_enable_x64 is True)
    )
    thread.start()
    thread.join()
    assert found == [False]


def test_float64_is_an_error_where_the_host_has_none():
    with pytest.raises(TypeError, match="the host does not compute in float64"):
        check(with_jvp(always_float32), points(3), precision="float64", **OPTIONS)


def test_code_in_mixed_precision_that_calls_the_host_stays_in_its_own():
    def f(x):
        y = x.astype(jnp.bfloat16).astype(jnp.float32)
        return with_vjp(always_float32, **FULL)(y) + x

    result = check(f, points(5), **OPTIONS)
    assert result.verdict is not Verdict.FAIL
    assert result.precision == "bfloat16"


def test_what_only_looks_on_from_the_host_is_checked_in_float64():
    def f(x):
        jax.debug.callback(lambda a: None, x)
        return jnp.sin(x)

    assert check(f, points(5), **OPTIONS).precision == "float64"


@pytest.mark.slow
def test_the_whole_check_an_audit_and_the_drop_in_call_the_host():
    for host in (as_given, always_float32):
        f = with_vjp(host, vmap_method="sequential")
        assert check(f, points(300)).verdict is Verdict.PASS
        assert audit(lambda x, f=f: f(x).sum(), points(300)).verdict is Verdict.PASS
        check_grads(f, (points(300),), 1, modes=("rev",))
