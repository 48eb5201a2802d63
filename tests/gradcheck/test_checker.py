"""What `check` takes, refuses, costs and says."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.gradcheck import Verdict, check, examination

X = np.random.default_rng(0).standard_normal(8, np.float32)


def test_only_floating_leaves_are_probed():
    def f(batch, key):
        kept = jax.random.bernoulli(key, 0.5, batch["x"].shape)
        return jnp.where(kept, batch["x"], 0)[batch["index"]] * batch["count"]

    batch = {"x": X, "index": jnp.arange(3), "count": 2, "none": None, "flag": True}
    result = check(f, batch, jax.random.key(0))
    assert result.verdict is Verdict.PASS
    assert {g.leaf for g in result.findings} == {"args[0].x"}


def test_all_floating_outputs_are_checked_together():
    @jax.custom_jvp
    def cube(x):
        return x**3

    cube.defjvp(lambda x, v: (x[0] ** 3, 3.1 * x[0] ** 2 * v[0]))
    result = check(lambda x: {"sine": jnp.sin(x), "n": 3, "cube": cube(x)}, X)
    assert result.verdict is Verdict.FAIL


@pytest.mark.slow
def test_both_modes_are_found_unless_there_is_no_jvp():
    rule = jax.custom_vjp(jnp.sin)
    rule.defvjp(lambda x: (jnp.sin(x), x), lambda x, w: (w * jnp.cos(x),))
    assert {g.mode for g in check(jnp.sin, X).findings} == {"forward", "reverse"}
    for f in (rule, jax.jit(rule)):
        result = check(f, X)
        assert {g.mode for g in result.findings} == {"reverse"}
        assert "custom_vjp, which has no JVP" in result.notes[0]


def test_float32_arguments_and_constants_are_checked_in_float64():
    scale = jnp.float32(3)
    result = check(lambda x: jnp.sin(x * scale), X)
    assert result.precision == "float64"
    assert result.resolution < 1e-9
    assert not result.notes
    assert not jax.config.jax_enable_x64


def test_a_function_that_rounds_inside_is_widened():
    result = check(lambda x: jnp.sin(x.astype(jnp.float32)).astype(x.dtype), X)
    assert result.precision == "float64"
    assert result.rtol == 1e-2
    assert "widened to float64, because it rounds to float32 inside" in result.notes[0]


def test_a_function_that_cannot_be_widened_is_checked_in_its_own_dtype():
    def f(x):
        y = x.astype(jnp.float32)
        return jax.lax.while_loop(lambda y: y[0] > 9, lambda y: y / 2, y) + y

    result = check(f, X, modes=("forward",))
    assert result.precision == "float32"
    assert result.rtol == 1e-2
    assert "rounds to float32 inside" in result.notes[0]


def test_a_function_that_does_not_trace_in_float64_is_widened():
    def f(x):
        if x.dtype != jnp.float32:
            raise TypeError("this kernel takes float32")
        return jnp.sin(x)

    result = check(f, X)
    assert result.verdict is Verdict.PASS
    assert result.precision == "float64"
    assert result.rtol == 1e-2
    assert "this kernel takes float32" in result.notes[0]


def test_a_bfloat16_function_is_never_passed_at_a_resolution_it_lacks():
    result = check(lambda x: jnp.sin(x.astype(jnp.bfloat16)), X, precision="own")
    assert result.precision == "bfloat16"
    assert result.verdict is Verdict.INCONCLUSIVE


def test_the_evaluations_do_not_depend_on_the_size():
    small, large = (
        check(jnp.tanh, np.ones(n, np.float32), at="given") for n in (2, 4096)
    )
    assert small.evaluations == large.evaluations < 500


def test_the_probes_give_the_same_answer_when_taken_in_turns():
    whole = check(jnp.tanh, X)
    parts = check(jnp.tanh, X, max_bytes=2**12)
    assert parts.verdict is Verdict.PASS
    # The same points and directions: only the order of sums can differ.
    np.testing.assert_allclose(parts.resolution, whole.resolution, rtol=0.5)


def test_the_resolution_asked_for_decides_what_passes():
    assert check(jnp.tanh, X, rtol=1e-16).verdict is Verdict.INCONCLUSIVE


def test_the_seed_draws_the_directions():
    one, same, other = (check(jnp.square, X[:1], seed=s) for s in (1, 1, 2))
    assert one == same
    assert one.resolution != other.resolution


def test_nothing_is_accused_that_a_second_look_does_not_confirm(monkeypatch):
    states = iter(["differs", "agrees"])

    def compare(*args, **kwargs):
        return dataclasses.replace(_compare(*args, **kwargs), state=next(states))

    _compare = examination.compare
    monkeypatch.setattr(examination, "compare", compare)
    result = check(jnp.tanh, X, at="given", modes=("reverse",))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "and not along another" in result.reason


def test_rounding_a_large_argument_is_no_noise_if_the_vjp_is_right():
    result = check(jnp.sin, 1e6 + X)
    # Without its help, 1e6 * 2e-16 over steps of 0.05 leaves 5e-9, and the bars 1e-6.
    assert result.resolution < 1e-9
    assert check(jnp.sin, 1e6 + X, modes=("forward",)).resolution > 1e-9


def test_a_result_prints_in_fifteen_lines_whatever_the_number_of_leaves():
    result = check(lambda *xs: sum(jnp.sin(x) for x in xs), *[X[:1]] * 6)
    assert len(str(result).splitlines()) <= 15
    assert "12 more findings" in str(result)


def test_a_result_is_a_pytree_of_its_numbers():
    result = check(jnp.tanh, X)
    doubled = jax.tree.map(lambda a: 2 * a, result)
    assert doubled.resolution == 2 * result.resolution
    assert doubled.verdict is Verdict.PASS


def test_a_small_function_is_checked_in_the_time_of_thirty_compilations_when_warm():
    """As a ratio within one process, the least of three: the machine may be shared."""

    def seconds(function):
        start = time.process_time()
        function()
        return time.process_time() - start

    def compiled():
        jax.jit(lambda x: jax.vjp(jnp.tanh, x)[1](x)).lower(X).compile()

    check(jnp.tanh, X)
    compiled()
    pairs = [(seconds(lambda: check(jnp.tanh, X)), seconds(compiled)) for _ in range(3)]
    warm, one = map(min, zip(*pairs, strict=True))
    assert warm < 30 * one


def test_bad_input_is_refused_with_a_reason():
    with pytest.raises(TypeError, match="expected a function"):
        check(X, X)
    with pytest.raises(ValueError, match=r"leaves are \[int\]"):
        check(lambda n: n, 3)
    with pytest.raises(ValueError, match="no floating array"):
        check(lambda x: jnp.argmax(x), X)
    with pytest.raises(ValueError, match="got 'forward'"):
        check(jnp.sin, X, modes="forward")
    with pytest.raises(ValueError, match="above 0 below 1, got 2"):
        check(jnp.sin, X, rtol=2)


def test_a_rule_of_the_wrong_shape_is_an_error_not_a_skipped_mode():
    rule = jax.custom_vjp(jnp.sin)
    rule.defvjp(lambda x: (jnp.sin(x), x), lambda x, w: (w[:1],))
    with pytest.raises(ValueError, match="bwd rule produced an output"):
        check(rule, X)
