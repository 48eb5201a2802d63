"""Second derivatives are checked as first ones of the rules, also where f is zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab._attempt import Refusal
from gradstab.gradcheck.checker import check
from gradstab.gradcheck.findings import Verdict
from gradstab.gradcheck.laws import second_order as module
from gradstab.gradcheck.laws.second_order import (
    hessian_symmetry,
    missing_second_order,
    off_domain,
    second_order,
)
from gradstab.gradcheck.subject.problem import problem

pytestmark = pytest.mark.usefixtures("quick_compiler")

X = np.random.default_rng(0).standard_normal(6, np.float32)
ZERO = np.zeros(4, np.float32)
ROOTS = np.float32(np.pi) * np.arange(4, dtype=np.float32)  # of the sine, to rounding
MODES = ("forward", "reverse")
QUICKLY = {"at": "given", "transformations": False, "locate": False}


def task(f, *args, modes=MODES):
    return problem(f, args, modes=modes)


def verdicts(f, *args, modes=MODES):
    """The verdict of each second derivative, by name."""
    found = second_order(task(f, *args, modes=modes))
    return {
        name: check(g, *given, modes=(name.split()[0],), **QUICKLY).verdict
        for name, g, given in found
    }


def wrong(f, *args, **options):
    found = verdicts(f, *args, **options)
    return {name for name, verdict in found.items() if verdict is Verdict.FAIL}


def broken(f, *args, **options):
    given = task(f, *args, **options)
    found = hessian_symmetry(given, given.leaves, np.random.default_rng(0))
    return [i.name for i in found if not i.holds]


def sine(gradient):
    """The sine with the gradient ``gradient(x, w)``."""
    rule = jax.custom_vjp(lambda x: jnp.sin(x))
    rule.defvjp(lambda x: (jnp.sin(x), x), lambda x, w: (gradient(x, w),))
    return rule


REVERSE = {"forward over reverse", "reverse over reverse"}
ALL = {*REVERSE, "reverse over forward"}


@pytest.mark.slow
def test_a_smooth_function_has_all_three_and_they_are_right():
    assert verdicts(jnp.tanh, X) == dict.fromkeys(ALL, Verdict.PASS)
    assert missing_second_order(task(jnp.tanh, X)) == ()


def test_the_functions_are_the_rules_themselves():
    given = task(lambda x, y: x**2 * y, X, X)
    for name, g, (leaves, w) in second_order(given):
        with given.context():
            (x, y), of = leaves, g(leaves, w)
            if name.endswith("reverse"):
                np.testing.assert_allclose(of[0], 2 * x * y * w[0], rtol=1e-12)
            else:
                np.testing.assert_allclose(
                    of[0], 2 * x * y * w[0] + x**2 * w[1], rtol=1e-12
                )


def test_the_cotangent_depends_neither_on_the_point_nor_on_the_value():
    found = [second_order(task(jnp.sin, x)) for x in (ZERO, ROOTS)]
    assert [len(three) for three in found] == [3, 3]
    cotangents = [three[0][2][1] for three in found]
    np.testing.assert_array_equal(*cotangents)
    assert np.all(cotangents[0][0] != 0)
    other = second_order(task(jnp.sin, ZERO), seed=1)[0][2][1]
    assert np.any(other[0] != cotangents[0][0])


@pytest.mark.slow
def test_a_residual_that_is_treated_as_constant_is_found():
    def gradient(x, w):
        return w * jax.lax.stop_gradient(jnp.cos(x)) + 0 * x

    assert wrong(sine(gradient), X) == REVERSE


def test_a_constant_residual_is_found_where_the_point_and_the_value_are_zero():
    rule = jax.custom_vjp(lambda x: jnp.expm1(x))
    rule.defvjp(
        lambda x: (jnp.expm1(x), jnp.exp(x)),
        lambda y, w: (w * jax.lax.stop_gradient(y),),
    )
    assert wrong(rule, ZERO) == REVERSE


@pytest.mark.slow
def test_a_second_application_that_bypasses_the_rule_is_found():
    def raw(x):  # its own derivative is not that of the rule
        return jax.lax.stop_gradient(jnp.exp(x)) + 0 * x

    rule = jax.custom_jvp(raw)
    rule.defjvp(lambda x, v: (rule(*x), raw(*x) * v[0]))
    assert wrong(rule, ZERO) == ALL
    right = jax.custom_jvp(raw)
    right.defjvp(lambda x, v: (right(*x), right(*x) * v[0]))
    assert not wrong(right, ZERO)


@pytest.mark.slow
def test_a_derivative_that_is_wrong_forward_over_reverse_only_is_found():
    def halved(v):  # the transpose is right
        return jax.custom_derivatives.linear_call(
            lambda _, v: 0.5 * v, lambda _, w: w, (), v
        )

    slope = jax.custom_jvp(lambda x: jnp.cos(x))
    slope.defjvp(lambda x, v: (jnp.cos(*x), -jnp.sin(*x) * halved(v[0])))
    assert wrong(sine(lambda x, w: w * slope(x)), X) == {"forward over reverse"}
    assert broken(sine(lambda x, w: w * slope(x)), X) == []  # a diagonal is symmetric


def test_what_does_not_exist_is_left_out_and_said():
    given = task(sine(lambda x, w: w * jnp.cos(x)), X)
    assert {name for name, *_ in second_order(given)} == REVERSE
    (note,) = missing_second_order(given)
    assert note.startswith("reverse over forward was not checked")

    def gradient(x, w):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(lambda x, w: w * np.cos(x), shape, x, w)

    given = task(sine(gradient), X)
    assert second_order(given) == ()
    notes = " ".join(missing_second_order(given))
    assert "forward over reverse does not exist: ValueError" in notes
    assert "callback" in notes.lower()


def test_a_rule_whose_backward_pass_has_a_rule_has_no_forward_over_reverse():
    slope = jax.custom_vjp(lambda x: jnp.cos(x))
    slope.defvjp(lambda x: (jnp.cos(x), x), lambda x, w: (-w * jnp.sin(x),))
    given = task(sine(lambda x, w: w * slope(x)), X)
    assert [name for name, *_ in second_order(given)] == ["reverse over reverse"]


SYMMETRIC = {
    "network": (lambda x: jnp.tanh(jnp.outer(x, x) @ x), X),
    "attention in float32": (
        lambda x: jax.nn.softmax(jnp.outer(x, x).astype(jnp.float32)) @ x,
        X,
    ),
    "relu at its kink": (lambda x: jnp.sum(jax.nn.relu(x)) ** 2, ZERO),
    "two arguments": (lambda x, y: jnp.sin(x) * jnp.exp(y), X, X),
    "bfloat16": (lambda x: jax.nn.softmax(x.astype(jnp.bfloat16)), X),
    "rule without a forward mode": (sine(lambda x, w: w * jnp.cos(x)), X),
}


@pytest.mark.parametrize("case", SYMMETRIC.values(), ids=SYMMETRIC.keys())
def test_second_derivatives_commute(case):
    given = task(*case)
    found = hessian_symmetry(given, given.leaves, np.random.default_rng(0))
    assert [i.name for i in found] == ["symmetric Hessian"]
    assert found[0].holds
    assert not found[0].detail.startswith("not tried")


def test_a_gradient_that_is_none_is_found_by_its_hessian():
    turned = jax.custom_vjp(lambda x: jnp.sum(x**2) / 2)
    turned.defvjp(lambda x: (jnp.sum(x**2) / 2, x), lambda x, w: (w * jnp.roll(x, 1),))
    assert broken(turned, X) == ["symmetric Hessian"]


@pytest.mark.slow
def test_a_hessian_that_lacks_a_term_is_found():
    def gradient(x, w):  # of sum(x)**3, with one factor taken for a constant
        total = jnp.sum(x)
        kept = jax.lax.stop_gradient(x)
        return (
            w * 3 * total * jnp.sum(kept) * (1 + 0 * x) + w * (x - kept) * kept * x[0]
        )

    cube = jax.custom_vjp(lambda x: jnp.sum(x) ** 3)
    cube.defvjp(lambda x: (jnp.sum(x) ** 3, x), lambda x, w: (gradient(x, w),))
    assert wrong(cube, X) >= REVERSE


def test_nothing_is_tried_without_a_reverse_mode():
    given = task(jnp.sin, X, modes=("forward",))
    assert hessian_symmetry(given, given.leaves, np.random.default_rng(0)) == ()
    assert [name for name, *_ in second_order(given)] == ["reverse over forward"]


def test_code_that_cannot_be_traced_has_no_hessian_to_try(monkeypatch):
    refusal = Refusal(TypeError("no rule"))
    monkeypatch.setattr(module, "_hessian_product", lambda *_: refusal)
    given = task(jnp.sin, X)
    (only,) = hessian_symmetry(given, given.leaves, np.random.default_rng(0))
    assert only.holds
    assert only.detail == "not tried: TypeError: no rule"


def _matrix(num=4):
    a = np.random.default_rng(1).normal(size=(num, num))
    return a @ a.T + num * np.eye(num)


def _symmetric_solve(a, b):
    return jax.lax.custom_linear_solve(
        lambda v: a @ v, b, lambda _, b: jnp.linalg.solve(a, b), symmetric=True
    )


def _inverse(transposed):
    """The inverse, with a rule that is right for symmetric matrices at least."""
    rule = jax.custom_vjp(lambda a: jnp.linalg.inv(a))

    def bwd(y, w):
        left = y.T if transposed else y
        return (-left @ w @ left,)

    rule.defvjp(lambda a: (jnp.linalg.inv(a),) * 2, bwd)
    return rule


def _of_stack(a):
    return jax.vmap(_inverse(False))(a)


ON_SYMMETRIC = {
    "a solver that uses the symmetry": (_symmetric_solve, _matrix(), np.ones(4)),
    "beside another argument": (
        lambda s, a: _symmetric_solve(a, jnp.sin(s)),
        np.ones(4),
        _matrix(),
    ),
    "an inverse without its transposition": (_inverse(False), _matrix(3)),
    "a stack of matrices": (_of_stack, np.stack([_matrix(3), np.eye(3)])),
}


@pytest.mark.parametrize("case", ON_SYMMETRIC.values(), ids=ON_SYMMETRIC.keys())
def test_a_function_of_symmetric_matrices_is_named_as_one_and_not_accused(case):
    f, *args = case
    given = task(f, *args)
    found = hessian_symmetry(given, given.leaves, np.random.default_rng(0))
    assert found[0].holds
    (note,) = off_domain(found)
    assert "check f((a + a.T) / 2)" in note
    assert given.names[max(range(len(args)), key=lambda i: np.ndim(args[i]))] in note


def test_a_function_of_any_matrix_has_no_such_note():
    given = task(jnp.linalg.inv, _matrix())
    found = hessian_symmetry(given, given.leaves, np.random.default_rng(0))
    assert found[0].holds
    assert off_domain(found) == ()


def test_a_hessian_that_is_wrong_along_symmetric_directions_is_still_broken():
    bent = jax.custom_vjp(lambda a: jnp.sum(a**2) / 2)
    wrongly = jnp.arange(9.0).reshape(3, 3)
    bent.defvjp(
        lambda a: (jnp.sum(a**2) / 2, a), lambda a, w: (w * (a + wrongly * a[0, 0]),)
    )
    assert broken(bent, np.eye(3)) == ["symmetric Hessian"]


def test_at_another_than_a_symmetric_matrix_the_law_is_broken():
    assert broken(_symmetric_solve, np.triu(_matrix()), np.ones(4))


@pytest.mark.slow
def test_a_solver_that_uses_the_symmetry_passes_with_a_note_at_second_order():
    result = check(_symmetric_solve, _matrix(), np.ones(4), order=2, **QUICKLY)
    assert result.verdict is Verdict.PASS
    assert any("symmetric arguments" in note for note in result.notes)
