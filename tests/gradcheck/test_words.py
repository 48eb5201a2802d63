"""What a result says is what its reader wrote: indices, paths, signs, causes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import at_given, mostly_slow, with_vjp

import gradstab as gs
from gradstab.gradcheck.places.hints.factors import named_factor
from gradstab.gradcheck.subject.problem import problem

pytestmark = [pytest.mark.cases, pytest.mark.usefixtures("quick_compiler")]

X = np.linspace(0.5, 2, 5)
Z = np.array([0.3 + 0.7j, 1 - 0.2j])


def jvp_rule(f, tangent):
    made = jax.custom_jvp(f)
    made.defjvp(lambda x, v: (f(*x), tangent(*x, *v)))
    return made


def place(f, *args, **options):
    result = at_given(f, *args, **options)
    assert result.verdict is gs.Verdict.FAIL
    return result.locations[0]


IMAGINARY = with_vjp(
    lambda z: jnp.imag(jnp.exp(z)), lambda a, w: (w * jnp.conj(-1j * jnp.exp(a[0])),)
)


@pytest.mark.parametrize("z", [Z[0], Z[:1], Z], ids=["scalar", "one", "two"])
def test_a_complex_gradient_is_what_jax_says_at_its_own_index(z):
    found = place(IMAGINARY, z)
    assert found.leaf == "args[0]"
    assert len(found.index) == np.ndim(z)
    at = np.asarray(z)[found.index]
    right = -1j * np.exp(at)  # as jax.grad says: df/dx - i df/dy
    np.testing.assert_allclose(found.expected, right, rtol=1e-6)
    np.testing.assert_allclose(found.value, np.conj(right), rtol=1e-6)
    assert found.hint == "the conjugate of what is expected"
    assert (found.count, found.total) == (np.size(z), np.size(z))


def test_a_complex_place_prints_as_one_number():
    found = place(IMAGINARY, Z[:1])
    text = str(found)
    assert "args[0][0] (reverse): the rule says 0.869" in text
    assert f"{found.value:.8g}, expected {found.expected:.8g} +-" in text


COMPLEX = {
    "a holomorphic rule": (
        with_vjp(jnp.exp, lambda a, w: (w * jnp.conj(jnp.exp(a[0])),)),
        "the conjugate of what is expected: conj(f') for f'",
        "(output[",
    ),
    "a conjugated cotangent": (
        with_vjp(lambda z: z * z, lambda a, w: (2 * a[0] * jnp.conj(w),)),
        "the conjugate of the cotangent is used",
        "(output[",
    ),
    "a real part alone": (
        with_vjp(
            lambda z: jnp.sum(jnp.abs(z) ** 2),
            lambda a, w: (2 * w * jnp.real(a[0]) + 0j,),
        ),
        "the imaginary part is lost",
        "",
    ),
    "a factor of 1j": (
        with_vjp(lambda z: z * z, lambda a, w: (2j * a[0] * w,)),
        "a constant factor of 1j",
        "(output[",
    ),
    "a conjugated tangent": (
        jvp_rule(lambda z: z * z, lambda z, v: 2 * z * jnp.conj(v)),
        "the conjugate of ",
        "",
    ),
    "a path before the index": (
        with_vjp(
            lambda z: {"a": jnp.abs(z), "z": z * z},
            lambda a, w: (2 * a[0] * jnp.conj(w["z"]) + w["a"] * jnp.conj(a[0]),),
        ),
        "",
        "['z'][",
    ),
}


@pytest.mark.parametrize(
    "case", mostly_slow(COMPLEX, "a holomorphic rule", "a real part alone")
)
def test_mistakes_of_complex_rules_are_named(case):
    f, cause, output = case
    found = place(f, Z)
    assert found.leaf == "args[0]"
    assert found.hint.startswith(cause)
    assert output in found.output


@pytest.mark.slow
def test_a_complex_tangent_is_reported_with_its_direction():
    found = place(COMPLEX["a conjugated tangent"][0], Z, modes=("forward",))
    unit = {"1": 1, "1j": 1j}[found.along]
    np.testing.assert_allclose(found.expected, 2 * Z[found.index] * unit, rtol=1e-6)
    np.testing.assert_allclose(found.value, 2 * Z[found.index] / unit, rtol=1e-6)
    assert f"(forward along {found.along}, of output[" in str(found)


@pytest.mark.slow
def test_every_entry_of_a_complex_argument_is_reported_alike():
    found = place(IMAGINARY, Z, exhaustive=True)
    assert found.leaf == "args[0]"
    np.testing.assert_allclose(found.value, np.conj(found.expected), rtol=1e-6)


def _sines(x):
    return {"loss": jnp.sin(x), "aux": (jnp.cos(x), jnp.tanh(x[0]))}


PATHS = {
    "a dict": (
        lambda a, w: (w["loss"] * jnp.cos(a[0]) - w["aux"][0] * jnp.sin(a[0]),),
        "output['aux'][1]",
        "the cotangent of output['aux'][1] is not used",
    ),
    "an entry": (
        lambda a, w: (jax.vjp(_sines, a[0])[1](w)[0].at[3].add(w["loss"][3]),),
        "output['loss'][3]",
        "",
    ),
}


@pytest.mark.parametrize("case", PATHS.values(), ids=PATHS.keys())
def test_outputs_are_named_by_their_path(case):
    bwd, name, cause = case
    found = place(with_vjp(_sines, bwd), X)
    assert f", of {name})" in str(found)
    assert found.hint.startswith(cause)


@pytest.mark.slow
def test_laws_name_outputs_by_path():
    def fwd(x):
        return {"loss": jnp.sin(x), "n": 2 * jnp.cos(x)}, x

    two = jax.custom_vjp(lambda x: {"loss": jnp.sin(x), "n": jnp.cos(x)})
    two.defvjp(fwd, lambda x, w: (w["loss"] * jnp.cos(x) - w["n"] * jnp.sin(x),))
    result = at_given(two, X, locate=False)
    assert "value of the VJP (output['n'])" in result.reason


def test_a_factor_near_one_says_how_far_off_it_is():
    assert named_factor(1 + 5e-7, 1e-9) == "1 + 5.0e-07"
    assert named_factor(-0.5 * (1 - 1e-5), 1e-9) == "-1/2 times (1 - 1.0e-05)"
    found = place(with_vjp(jnp.square, lambda a, w: (2 * w * a[0] * (1 + 2e-5),)), X)
    assert found.hint == "a constant factor of 1 + 2.0e-05"


KINKS = {
    "a norm": (jnp.linalg.norm, np.zeros(3), "a kink, with slopes -1 and 1"),
    "a root": (lambda x: jnp.sqrt(jnp.abs(x)), np.array([0.0, 1]), "infinite slopes"),
    "a distance": (
        lambda x: jnp.sqrt(jnp.sum((x - x[0]) ** 2) + 0 * x[0]),
        np.full(3, 2.0),
        "a kink",
    ),
    "a scaled norm": (
        lambda x: 3 * jnp.linalg.norm(x) + x[0],
        np.zeros(2),
        "with slopes",
    ),
}


@pytest.mark.parametrize("case", mostly_slow(KINKS, "a norm", "a root"))
def test_where_f_has_a_kink_nothing_is_expected(case):
    f, x, words = case
    found = place(f, x)
    assert np.isnan(found.expected)
    assert words in found.instead
    assert found.hint == "f has a kink there, and the rule is not finite"
    assert "expected" not in str(found)


def test_a_rule_that_is_not_finite_where_f_is_smooth_has_an_expected_value():
    found = place(
        lambda x: jnp.where(x == 0, 1.0, jnp.sin(x) / jnp.where(x == 0, x, x)),
        np.array([0.0, 1.0]),
    )
    assert found.instead == ""
    assert abs(found.expected) <= found.bar


STRAIGHT = {
    "a rule": with_vjp(lambda x: jnp.round(x), lambda a, w: (w,)),
    "a sign": with_vjp(lambda x: jnp.sign(x - 1), lambda a, w: (w,)),
    "stop_gradient": lambda x: x + jax.lax.stop_gradient(jnp.round(x) - x),
    "a coarse grid": with_vjp(lambda x: jnp.round(8 * x) / 8, lambda a, w: (w,)),
}


@pytest.mark.parametrize("f", mostly_slow(STRAIGHT, "a rule", "stop_gradient"))
def test_straight_through_functions_are_told_of_expect(f):
    result = at_given(f, 1.01 * X)
    assert result.verdict is not gs.Verdict.PASS
    assert "expect=" in str(result)
    if result.verdict is gs.Verdict.INCONCLUSIVE:
        assert result.locations == ()
        assert "entries are wrong" not in str(result)


@pytest.mark.slow
def test_a_saturated_function_is_not_taken_for_one():
    assert "expect=" not in str(at_given(lambda x: jax.nn.sigmoid(x + 40), X))


@pytest.mark.slow
def test_an_inconclusive_result_accuses_no_entry():
    soft = with_vjp(
        lambda x: jax.nn.softmax(x), lambda a, w: (w * jax.nn.softmax(a[0]),)
    )
    result = at_given(soft, np.array([-np.inf, 0.3, -0.2, 0.8]))
    if result.verdict is gs.Verdict.INCONCLUSIVE:
        assert "entries are wrong" not in str(result)
    assert "not finite in 0 of" not in str(result)


def test_a_border_of_the_domain_is_no_agreement():
    result = at_given(lambda x: x * jnp.sqrt(x), np.float32([0, 2]))
    assert "nan: agrees" not in str(result)


def test_a_zero_gradient_that_is_right_elsewhere_is_not_called_detached():
    divided = with_vjp(
        lambda x: jnp.prod(x),
        lambda a, w: (w * jnp.prod(a[0]) / jnp.where(a[0] == 0, 1, a[0]),),
    )
    found = place(divided, np.array([0.5, 0, 1.0, 2.0, 3.0]))
    assert "detached" not in found.hint
    assert "1 of 5 entries" in found.hint


SMOOTH = jax.custom_vjp(jnp.tanh)
SMOOTH.defvjp(
    lambda x: (jnp.tanh(x),) * 2,
    lambda y, w: (w * (1 - jax.lax.stop_gradient(y) ** 2),),
)


def test_a_wrong_second_derivative_has_a_place_and_a_cause():
    result = at_given(lambda x: SMOOTH(x), X, order=2)
    assert result.reason.startswith(
        "wrong second derivative in args[0], forward over reverse; args[0], reverse"
    )
    found = result.locations[0]
    assert (found.leaf, found.count, found.total) == ("args[0]", 5, 5)
    assert found.mode in ("forward over reverse", "reverse over reverse")
    assert "of the gradient of args[0][" in str(found)
    assert found.hint.startswith("no gradient at all")


M = np.random.default_rng(0).normal(size=(4, 4))
inverse = jnp.linalg.inv
CAUSES = {
    "A for A.T": (
        with_vjp(lambda x: M @ x, lambda a, w: (M @ w,)),
        X[:4],
        "the Jacobian",
    ),
    "a solver": (
        with_vjp(
            lambda b: jnp.linalg.solve(M, b), lambda a, w: (jnp.linalg.solve(M, w),)
        ),
        X[:4],
        "the Jacobian is transposed: is A used for A.T?",
    ),
    "an inverse": (
        with_vjp(inverse, lambda a, w: (-inverse(a[0]) @ w @ inverse(a[0]),)),
        M,
        "a transposition is missing",
    ),
    "a factor in some entries": (
        with_vjp(
            jnp.sin,
            lambda a, w: (w * jnp.cos(a[0]) * jnp.where(jnp.arange(12) % 3, 1.0, 2.0),),
        ),
        np.linspace(0.1, 1, 12),
        "a factor of 2 in 4 of the 12 entries looked at",
    ),
    "the first row of a batch": (
        with_vjp(jnp.sin, lambda a, w: (w * jnp.cos(a[0][:1]),)),
        M,
        "right in the first row only (axis 0)",
    ),
    "the last row": (
        with_vjp(jnp.sin, lambda a, w: ((w * jnp.cos(a[0])).at[:, -1].multiply(3.0),)),
        M,
        "wrong in the last row only (axis 1)",
    ),
}


@pytest.mark.parametrize(
    "case",
    mostly_slow(
        CAUSES, "A for A.T", "a factor in some entries", "the first row of a batch"
    ),
)
def test_more_causes_are_named(case):
    f, x, cause = case
    with jax.numpy_rank_promotion("allow"):
        assert place(f, x).hint.startswith(cause)


SAMPLERS = {
    "gamma": lambda a: jax.random.gamma(jax.random.key(0), a),
    "beta": lambda a: jax.random.beta(jax.random.key(0), a, a),
    "dirichlet": lambda a: jax.random.dirichlet(jax.random.key(0), a),
    "t": lambda a: jax.random.t(jax.random.key(0), a),
    "under jit": jax.jit(lambda a: jax.random.loggamma(jax.random.key(0), a)),
}


@pytest.mark.parametrize("f", mostly_slow(SAMPLERS, "gamma", "dirichlet"))
def test_a_sampler_has_a_note_that_its_gradients_are_implicit(f):
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        notes = problem(f, (np.float32([0.5, 2.0]),)).notes
    assert any("implicit on purpose" in note for note in notes)


@pytest.mark.slow
def test_a_normal_draw_has_no_such_note():
    result = at_given(lambda x: x * jax.random.normal(jax.random.key(0), (5,)), X)
    assert not any("implicit" in note for note in result.notes)
