"""Where differences in few digits are blind, rule and body decide it between them."""

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck import Verdict, check
from gradstab.gradcheck.findings import BODY

X = np.random.default_rng(0).standard_normal(4096).astype(jnp.bfloat16)


def mean_square(factor, body=jnp.square):
    """Of bfloat16: 1 / n per entry is lost in what rounding does to the mean."""

    @jax.custom_vjp
    def f(x):
        return jnp.mean(body(x))

    def backward(x, w):
        return ((factor * 2 / x.size) * w * x.astype(w.dtype),)

    f.defvjp(lambda x: (f(x), x), backward)
    return f


def judged(f):
    options = {"transformations": False, "locate": False, "precision": "own"}
    result = check(f, X, at="given", **options)
    blind = [g for g in result.findings if g.oracle == BODY]
    assert blind, "the differences along random directions could tell"
    return result


def test_a_rule_that_its_body_contradicts_is_accused_where_both_differ_most():
    result = judged(mean_square(0.5))
    assert result.verdict is Verdict.FAIL
    assert "wrong reverse derivative" in result.reason


def test_a_rule_is_not_accused_by_a_body_that_has_no_good_derivative():
    detached = mean_square(1, lambda x: x * jax.lax.stop_gradient(x))
    assert judged(detached).verdict is Verdict.INCONCLUSIVE


def test_a_right_rule_is_acquitted_by_its_body():
    assert judged(mean_square(1)).verdict is Verdict.PASS
