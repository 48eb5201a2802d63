import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from figure_checks import assert_readable
from rich.console import Console

from gradstab.gradcheck import Verdict, check, views

X = np.linspace(-1, 1, 5, dtype=np.float32)


@pytest.fixture(scope="module")
def results(quick_compiler):
    wrong = jax.custom_jvp(jnp.tanh)
    wrong.defjvp(lambda x, v: (jnp.tanh(*x), 0.9 * (1 - jnp.tanh(x[0]) ** 2) * v[0]))
    options = {"at": "given", "transformations": False}
    return {
        "right": check(jnp.tanh, X, **options),
        "wrong": check(wrong, X, **options),
        "unseen": check(lambda x: jax.nn.sigmoid(x + 40), X, **options),
    }


def printed(view, result):
    console = Console(file=io.StringIO(), width=200)
    view(result, console)
    return console.file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["right", "wrong", "unseen"])
def test_everything_that_a_check_says_is_shown(results, name):
    result = results[name]
    text = printed(views.show, result)
    assert text.startswith(result.verdict.value)
    for words in (result.reason, f"{result.evaluations} evaluations", *result.notes):
        assert words in text
    for finding in result.findings:
        row = [line for line in text.splitlines() if f"{finding.error:.1e}" in line]
        assert any(finding.mode in line and finding.state in line for line in row)
    for law in result.identities:
        assert law.name in text


@pytest.mark.slow
def test_an_exhaustive_check_shows_the_figures_of_the_textbooks(quick_compiler):
    result = check(jnp.tanh, X, at="given", transformations=False, exhaustive=True)
    text = printed(views.show, result)
    for name, value in (
        ("norm ratio", result.figures.ratio),
        ("worst relative error", result.figures.worst_error),
    ):
        (row,) = (line for line in text.splitlines() if line.strip().startswith(name))
        assert f"{value:.1e}" in row


def test_a_check_shows_itself(results):
    result = results["right"]
    assert printed(type(result).show, result) == printed(views.show, result)
    assert result._repr_html_() == views.html(result)


def test_the_html_holds_the_same_words(results):
    text = views.html(results["wrong"])
    assert text.startswith("<pre ")
    assert "FAIL" in text
    assert "differs" in text


def test_the_table_has_a_row_for_each_check(results):
    table = views.table(results)
    assert table.row_count == 3
    text = printed(lambda table, console: console.print(table), table)
    for name, result in results.items():
        (row,) = (line for line in text.splitlines() if name in line)
        assert result.verdict.value in row
        assert f"{result.resolution:.1e}" in row


@pytest.mark.parametrize("name", ["right", "wrong", "unseen"])
def test_json_values_say_all_and_survive_a_file(results, name):
    result = results[name]
    values = json.loads(json.dumps(views.as_json(result), allow_nan=False))
    assert Verdict(values["verdict"]) is result.verdict
    assert float(values["resolution"]) == result.resolution
    assert len(values["findings"]) == len(result.findings)
    first = values["findings"][0]
    assert float(first["error"]) == pytest.approx(result.findings[0].error, nan_ok=True)
    assert first["leaf"] == "args[0]"
    assert values["notes"] == list(result.notes)


def test_numbers_that_json_lacks_are_read_back_by_float():
    values = views.as_json((np.inf, -np.inf, np.nan, np.float32(2), np.arange(2)))
    assert values == ["Infinity", "-Infinity", "NaN", 2.0, [0, 1]]
    assert [float(v) for v in values[:2]] == [np.inf, -np.inf]


def test_the_plot_shows_residuals_rounding_and_resolution(results):
    right = results["right"]
    (axes,) = right.plot().axes
    *curves, line = axes.get_lines()
    assert [curve.get_label() for curve in curves] == [
        "args[0] (forward)",
        "args[0] (reverse)",
    ]
    (forward, _) = right.curves
    np.testing.assert_array_equal(
        curves[0].get_xydata(), np.c_[forward.steps, forward.residuals]
    )
    assert set(line.get_ydata()) == {right.resolution}
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert results["wrong"].plot(axes=axes) is axes.figure
    assert results["wrong"].plot(ax=axes) is axes.figure


@pytest.mark.parametrize("name", ["right", "wrong", "unseen"])
def test_the_plot_can_be_read(results, name):
    assert_readable(results[name].plot())


def test_a_right_rule_falls_with_the_step_and_a_wrong_one_stops(results):
    (right, _), (wrong, _) = results["right"].curves, results["wrong"].curves
    assert np.min(right.residuals) < 1e-9
    # 0.9 of the derivative: the differences are off by a ninth of the rule.
    steps, residuals, bars = map(np.array, (wrong.steps, wrong.residuals, wrong.bars))
    inside = (steps < 1e-2) & (bars < 1e-3)
    np.testing.assert_allclose(residuals[inside], 1 / 9, rtol=0.02)
    # Truncation: of a hundredth of the step it is a ten thousandth.
    steps, residuals = map(np.array, (right.steps, right.residuals))
    near = (steps < 0.1) & (steps > 1e-3)
    slope = np.polyfit(np.log(steps[near]), np.log(residuals[near]), 1)[0]
    assert 1.8 < slope < 2.2


def test_every_leaf_has_its_curves():
    options = {"at": "given", "transformations": False, "modes": ("reverse",)}
    result = check(jnp.multiply, X, X + 2, **options)
    assert [curve.leaf for curve in result.curves] == ["args[0]", "args[1]"]
