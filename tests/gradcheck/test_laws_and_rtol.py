"""A law that is off by less than the error that is accepted is not broken."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.custom_derivatives import linear_call

import gradstab as gs
from gradstab.gradcheck.laws.identities import identities
from gradstab.gradcheck.laws.second_order import hessian_symmetry
from gradstab.gradcheck.laws.transformations import transformations
from gradstab.gradcheck.subject.problem import problem

pytestmark = [pytest.mark.cases, pytest.mark.usefixtures("quick_compiler")]

X = np.random.default_rng(0).uniform(0.5, 1.5, 12)
QUICK = {"at": "given", "locate": False}


def _rule(fwd, bwd):
    rule = jax.custom_vjp(jnp.tanh)
    rule.defvjp(fwd, bwd)
    return rule


def _gradient(y, w):
    return w * (1 - y**2)


def _kept(x):
    return (jnp.tanh(x),) * 2


def _not_linear(size):
    def bwd(y, w):
        return (_gradient(y, w) + size * jnp.abs(_gradient(y, w)),)

    return _rule(_kept, bwd)


def _other_value(size):
    return _rule(lambda x: ((1 + size) * jnp.tanh(x), jnp.tanh(x)), _bwd)


def _bwd(y, w):
    return (_gradient(y, w),)


def _wrong_adjoint(size):
    a = np.random.default_rng(1).normal(size=(5, 12))
    return lambda x: linear_call(
        lambda r, x: r[0] @ x, lambda r, y: r[1].T @ y, (a, a * (1 + size)), x
    )


def _other_in_a_scan(size):
    def bwd(y, w):
        inside = any(frame.filename.endswith("loops.py") for frame in inspect.stack())
        return ((1 + size * inside) * _gradient(y, w),)

    return _rule(_kept, bwd)


def _other_when_traced_again(size):
    calls = []

    def bwd(y, w):
        calls.append(0)
        return ((1 + size * (len(calls) % 2)) * _gradient(y, w),)

    return _rule(_kept, bwd)


def _turned(size):
    rule = jax.custom_vjp(lambda x: jnp.sum(x**2) / 2)
    gradient = lambda x, w: (w * (x + size * jnp.roll(x, 1)),)  # noqa: E731
    rule.defvjp(lambda x: (jnp.sum(x**2) / 2, x), gradient)
    return rule


LAWS = {
    "homogeneous in the cotangent": (_not_linear, identities),
    "value of the VJP": (_other_value, identities),
    "adjoint of the JVP": (_wrong_adjoint, identities),
    "traced again": (_other_when_traced_again, identities),
    "scan": (_other_in_a_scan, transformations),
    "symmetric Hessian": (_turned, hessian_symmetry),
}


def _broken(name, size, rtol):
    make, laws = LAWS[name]
    task = problem(make(size), (X,))
    found = laws(task, task.leaves, np.random.default_rng(0), rtol=rtol)
    return name in {i.name for i in found if not i.holds}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("rtol", [1e-6, 1e-3])
def test_a_law_is_broken_by_errors_above_the_one_accepted_only(name, rtol):
    assert not _broken(name, 0.05 * rtol, rtol)
    assert _broken(name, 50 * rtol, rtol)


@pytest.mark.parametrize("name", LAWS)
def test_where_no_error_is_accepted_nine_digits_break_a_law(name):
    assert _broken(name, 1e-9, 0.0)


@pytest.mark.parametrize("num", [3, 60])
def test_the_adjoint_is_judged_alike_at_every_size(num):
    def f(size):
        a = np.random.default_rng(1).normal(size=(2 * num, num))
        e = np.random.default_rng(2).normal(size=(2 * num, num))
        return lambda x: linear_call(
            lambda r, x: r[0] @ x, lambda r, y: r[1].T @ y, (a, a + size * e), x
        )

    def lawful(size):
        task = problem(f(size), (np.linspace(-1, 1, num),))
        found = identities(task, task.leaves, np.random.default_rng(0), rtol=1e-6)
        return all(i.holds for i in found)

    assert lawful(5e-7)
    assert not lawful(2e-5)


@pytest.mark.parametrize(("size", "rtol"), [(1e-9, None), (1e-11, 1e-3), (1e-3, 0.1)])
def test_an_adjoint_with_fewer_digits_than_rounding_leaves_passes(size, rtol):
    assert gs.check(_wrong_adjoint(size), X, rtol=rtol, **QUICK).verdict.name == "PASS"


@pytest.mark.parametrize("name", ["value of the VJP", "adjoint of the JVP", "scan"])
def test_what_is_accepted_of_a_law_limits_what_a_pass_claims(name):
    result = gs.check(LAWS[name][0](1e-3), X, rtol=1e-2, **QUICK)
    assert result.verdict is gs.Verdict.PASS
    assert 0.4e-3 < result.resolution < 1e-2
    assert gs.check(LAWS[name][0](0.0), X, rtol=1e-2, **QUICK).resolution < 1e-6


def test_an_adjoint_off_by_more_than_asked_for_fails():
    result = gs.check(_wrong_adjoint(1e-3), X, **QUICK)
    assert result.verdict is gs.Verdict.FAIL
    assert "broken law: adjoint of the JVP" in result.reason
