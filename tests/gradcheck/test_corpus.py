"""A small part of the corpus of experiments/checkers."""

import collections
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstab as gs
from experiments.checkers import compare, judges
from experiments.checkers.cases import Case, cases, grade, precise
from experiments.checkers.frozen import half
from experiments.checkers.mutants import MUTANTS
from experiments.checkers.rules import gradient_of, with_vjp
from experiments.checkers.tables import HEADLINES, RIGHT, tables

pytestmark = pytest.mark.usefixtures("quick_compiler")

NAMED = {mutant.name: mutant for mutant in MUTANTS}


def test_every_class_that_one_function_can_show_has_three_operations():
    operations = collections.defaultdict(set)
    for mutant in MUTANTS:
        operations[mutant.klass].add(mutant.operation)
    assert set(operations) == set(range(1, 53)) - {29}  # 29 needs mutable arrays
    assert min(len(found) for found in operations.values()) >= 3


def test_names_are_unique_and_both_halves_are_large():
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)
    sizes = collections.Counter(map(half, names))
    assert min(sizes.values()) > 0.4 * len(names)


def test_a_grade_is_the_relative_frobenius_error():
    def f(x):
        return x * jnp.arange(1.0, 4.0)

    def wrong(args, w, g):
        return (g[0].at[0].set(3 * w[0]),)  # an error of 2 in a norm of sqrt(14)

    with precise():
        size = grade(with_vjp(f, wrong), f, (np.ones(3),))
    np.testing.assert_allclose(size, 2 / math.sqrt(14), rtol=1e-12)


def test_a_right_rule_has_grade_zero_and_a_broken_one_is_infinite():
    f = jnp.tanh
    with precise():
        assert grade(gradient_of(f, f), f, (np.ones(3),)) <= RIGHT
        nan = with_vjp(f, lambda args, w, g: (g[0] * jnp.nan,))
        assert grade(nan, f, (np.ones(3),)) == math.inf


@pytest.mark.parametrize(
    ("name", "shape", "size"),
    [
        ("02 tanh: one in a thousand", "odd", 1e-3),
        pytest.param(
            "04 softmax: without the normalising term",
            "large",
            0.15,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_mutant_is_graded_by_its_true_size_and_caught(name, shape, size):
    case = Case(NAMED[name], shape, "float64")
    np.testing.assert_allclose(case.size(), size, rtol=0.1)
    quick = {"at": "given", "transformations": False, "locate": False}
    assert gs.check(case.f, *case.args, **quick).verdict is gs.Verdict.FAIL


def test_the_tables_count_a_catch_a_miss_and_a_false_alarm():
    fields = {"judge": "gradstab.check", "half": "tuned", "klass": 1, "seconds": 1.0}
    fields |= {"dtype": "float64", "evaluations": 7, "reason": ""}

    def row(part, name, wrong, size, verdict):
        known = {"part": part, "name": name, "wrong": wrong, "size": size}
        return compare.Row(**known, **fields, verdict=verdict, resolution=1e-9)

    text = tables(
        [
            row("mutants", "a", True, 0.5, "FAIL"),
            row("mutants", "b", True, 0.5, "PASS"),
            row("mutants", "c", True, 0.0, "PASS"),
            row("mutants", "e", True, 0.5, "INCONCLUSIVE"),
            row("correct", "d", False, 0.0, "FAIL"),
        ]
    )
    assert "| float64 | from 1e-03 | 3 | 33.3 % | 1 | 1 |" in text
    assert "1 cases are not wrong" in text
    assert "above twice the stated resolution: 1." in text
    assert "| gradstab.check | 1 | 1 | 0 | 0 |" in text
    assert "- b (size 5.0e-01): PASS" in text
    assert "- d (size 0.0e+00): FAIL" in text


CONFIG = compare.Config(half="both", judges=("gradstab.check",), shapes="all")


@pytest.mark.slow
def test_every_hundredth_case_is_not_passed_and_most_are_caught():
    passed, missed = [], collections.Counter()
    for case in cases(MUTANTS)[::100]:
        options = {"dtype": case.dtype, "order": case.mutant.order}
        found = judges.judged("gradstab.check", case.f, case.args, **options)
        size = case.size()
        if found.verdict == "PASS" and size > max(RIGHT, 2 * found.resolution):
            passed.append(case.mutant.name)
        if size >= HEADLINES[case.dtype]:
            missed[case.dtype] += found.verdict != "FAIL"
    assert not passed
    # Of some six in every dtype; the rates are those of the whole corpus.
    assert missed["float64"] <= 1
    assert missed["float32"] <= 1
    assert missed["bfloat16"] <= 2


@pytest.mark.slow
@pytest.mark.parametrize("part", ["correct", "operations"])
def test_every_fiftieth_right_function_is_not_accused(part):
    config = compare.Config(half="both", parts=(part,), every=50)
    rows = []
    for task in compare.tasks(config):
        rows += compare.judge_task(task, CONFIG)
    assert not [row.name for row in rows if not row.wrong and row.verdict == "FAIL"]
    # One per cent of a derivative of zero is zero.
    wrong = [row for row in rows if row.wrong and row.size > 0]
    assert not [row.name for row in wrong if row.verdict == "PASS"]
    unsure = [row.name for row in rows if row.verdict == "INCONCLUSIVE"]
    assert len(unsure) <= 1, unsure


@pytest.mark.slow
def test_every_port_repeats_a_mutant_of_the_same_size():
    torch = pytest.importorskip("torch")
    ports = pytest.importorskip("experiments.checkers.torch_ports")
    judge = pytest.importorskip("experiments.checkers.torch_judge")
    assert len(ports.PORTS) >= 40
    assert set(ports.PORTS) <= set(NAMED)
    rng = np.random.default_rng(0)
    for name, port in ports.PORTS.items():
        args = Case(NAMED[name], "odd", "float64").args
        tensors = [torch.tensor(np.asarray(a)) for a in args]
        floating = [a.requires_grad_() for a in tensors if a.is_floating_point()]
        y = judge.as_function(port.f, port.mistake)(*tensors)
        w = rng.standard_normal(tuple(y.shape))
        theirs = torch.autograd.grad(y, floating, torch.tensor(w))
        ours = _gradients(NAMED[name], args, w)
        for a, b in zip(theirs, ours, strict=True):
            np.testing.assert_allclose(a.numpy(), b, rtol=1e-6, atol=1e-9, err_msg=name)


def _gradients(mutant, args, w):
    with precise():
        y, pullback = jax.vjp(mutant.f, *[jnp.asarray(a) for a in args])
        found = pullback(jnp.asarray(w).reshape(y.shape))
    return [np.asarray(g) for g in found if g.dtype == jnp.float64]


def _logsumexp_of_weights(b):
    return jax.scipy.special.logsumexp(jnp.zeros(2, b.dtype), b=b)


def _betaln_beside(a):
    return jax.scipy.special.betaln(a, jnp.full_like(a, -1.4))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("f", "x", "truth"),
    [
        # I_0' = I_1, zero at zero.
        (jax.scipy.special.i0, np.float64([0.0, 0.5]), [0.0, 0.25789430539]),
        # Of diag(0, 1, 1, 1) only the first cofactor is not zero.
        (jnp.linalg.det, np.diag([0.0, 1, 1, 1]), np.diag([1.0, 0, 0, 0])),
        # log(b_1 + b_2).
        (_logsumexp_of_weights, np.float64([0.0, 2.0]), [0.5, 0.5]),
        # -log(x) / (x - 1).
        (jax.scipy.special.spence, np.float64([0.5, 1.5]), [-np.log(4), -np.log(2.25)]),
        # digamma(-0.7) - digamma(-2.1).
        (_betaln_beside, np.float64([-0.7]), [-12.7043072337]),
    ],
    ids=["special.i0", "linalg.det", "logsumexp", "special.spence", "special.betaln"],
)
def test_derivatives_of_jax_itself_are_accused_where_they_are_wrong(f, x, truth):
    with jax.enable_x64(True):
        gradient = jax.grad(lambda x: f(x).sum())(x)
    wrong = not np.allclose(gradient, truth, rtol=1e-9)
    quick = {"at": "given", "transformations": False, "locate": False}
    verdict = gs.check(f, x, **quick).verdict
    assert verdict is (gs.Verdict.FAIL if wrong else gs.Verdict.PASS)
