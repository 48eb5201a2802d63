"""What an analysis costs is known before, and what is too much is not done."""

import jax
import jax.numpy as jnp
import pytest
from analysis_samples import normal, run

import gradstab as gs
from gradstab import _memory
from gradstab.analysis import budget
from gradstab.program import reads
from gradstab.program.work import num_equations, work_of


def _eqns(function, *args):
    return jax.make_jaxpr(function)(*args).jaxpr.eqns


def test_a_product_counts_two_operations_for_every_entry_that_it_sums():
    work = work_of(_eqns(lambda a, b: a @ b, jnp.ones((3, 4)), jnp.ones((4, 5))))
    assert work.flops == 2 * 3 * 4 * 5


def test_a_convolution_counts_its_window_and_a_grouped_one_its_group():
    def conv(x, w, groups=1):
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", feature_group_count=groups
        )

    x = jnp.ones((2, 6, 8, 8))
    whole = work_of(_eqns(conv, x, jnp.ones((12, 6, 3, 3))))
    apart = work_of(_eqns(lambda x, w: conv(x, w, 3), x, jnp.ones((12, 2, 3, 3))))
    assert whole.flops == 2 * (2 * 12 * 64) * 6 * 9
    assert apart.flops == whole.flops / 3


@pytest.mark.parametrize("length", [1, 7, 100])
def test_the_body_of_a_scan_counts_as_often_as_it_runs(length):
    def apply(w, x):
        return jax.lax.scan(lambda h, _: (h @ w, None), x, length=length)[0]

    eqns = _eqns(apply, jnp.ones((4, 4)), jnp.ones((3, 4)))
    assert work_of(eqns).flops == length * 2 * 3 * 4 * 4
    assert num_equations(eqns) == 2  # compiled once


def test_the_dearest_branch_of_a_condition_counts():
    def apply(w, x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ w @ w, lambda x: x @ w, x)

    work = work_of(_eqns(apply, jnp.ones((4, 4)), jnp.ones((3, 4))))
    assert work.flops == 2 * 2 * 3 * 4 * 4


def test_a_rule_counts_as_its_function_and_a_scatter_as_no_program():
    @jax.custom_vjp
    def double(x, w):
        return x @ w

    double.defvjp(lambda x, w: (x @ w, w), lambda w, g: (g @ w.T, w))
    x = jnp.ones((3, 4))
    assert work_of(_eqns(double, x, jnp.ones((4, 4)))).flops == 2 * 3 * 4 * 4
    assert work_of(_eqns(lambda x: x.at[0].add(1.0), x)).flops == 0


def test_bytes_are_counted_in_the_dtype():
    (variable,) = jax.make_jaxpr(lambda x: x)(
        jnp.ones((3, 4), jnp.bfloat16)
    ).jaxpr.invars
    assert reads.num_bytes(variable) == 24


def _deep():
    weights = [
        jax.random.normal(k, (8, 8)) / 3 for k in jax.random.split(jax.random.key(0), 4)
    ]
    return (lambda ws, x: _chain(ws, x)), weights, normal(1, 32, 8)


def _chain(weights, x):
    for w in weights:
        x = jnp.tanh(x @ w)
    return x


@pytest.mark.slow
def test_by_default_less_is_done_where_time_is_short_and_that_is_said(capsys):
    report = run(*_deep(), max_seconds=1e-3)
    assert report.made["jacobian_examples"] == 1
    assert sum(layer.jacobian is not None for layer in report.layers) == 0
    said = capsys.readouterr().err
    assert "to stay below 0.001 s" in said
    assert "examples=1, top_k=1, Jacobians of 0 of 4 layers" in said
    assert any("give examples=, top_k=, layers=" in note for note in report.notes)


@pytest.mark.slow
def test_what_was_asked_for_is_done_and_its_cost_is_said(capsys):
    options = {"examples": 3, "top_k": 2, "layers": ["0"]}
    report = run(*_deep(), max_seconds=1e-3, **options)
    assert report.layers[0].jacobian is not None
    assert report.layers[0].jacobian.values.shape == (3, 2)
    said = capsys.readouterr().err
    assert "this will take about" in said
    assert "examples=" not in said


def test_nothing_is_said_where_all_is_affordable(capsys):
    report = run(*_deep(), layers=[])
    assert report.made["jacobian_examples"] == 16
    assert report.notes == ("growth exponents: only some layers were asked for",)
    assert capsys.readouterr().err == ""


def test_signals_beyond_the_memory_are_refused_before_they_are_computed(monkeypatch):
    monkeypatch.setattr(_memory, "memory_at_hand", lambda: 2.0**20)
    with pytest.raises(MemoryError, match="analyse fewer examples"):
        gs.analyze(*_deep(), progress=False)


@pytest.mark.slow
def test_signals_that_are_large_in_float64_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(budget, "_WIDE_BYTES", 0)
    report = run(*_deep(), layers=[])
    assert report.made["precision"] == "float32"
    assert "in the precision of the model" in report.notes[-1]
    assert run(*_deep(), layers=[], precision="float64").made["precision"] == "float64"


@pytest.mark.slow
def test_a_layer_whose_jacobian_is_far_above_the_limit_is_left_out():
    params = {"a": jnp.ones((4, 4)), "b": jnp.ones((4, 2**14))}
    arguments = lambda p, x: x @ p["a"] @ p["b"], params, jnp.ones((2, 4))
    report = run(*arguments, max_bytes=2**20, max_dense=0)
    assert [layer.jacobian is None for layer in report.layers] == [False, True]
    assert any("no Jacobian of b" in note for note in report.notes)


def test_the_chosen_layers_are_spaced_evenly():
    wanted = [True] * 9
    assert [i for i, w in enumerate(budget._spaced(wanted, 3)) if w] == [0, 4, 8]
    assert sum(budget._spaced(wanted, 0)) == 0
