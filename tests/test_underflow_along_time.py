"""A gradient that is zero in float32 has a factor, a step and a law all the same."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstab as gs

STEPS = 500


def _model(factor):
    """h = factor h + w u, whose carry starts in float32."""

    def apply(p, x):
        start = jnp.zeros((x.shape[0], 4), jnp.float32)

        def step(h, u):
            return factor * h + u @ p["w"], None

        return jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))[0] @ p["v"]

    return apply


@pytest.fixture(scope="module")
def arrays():
    keys = jax.random.split(jax.random.key(0), 3)
    normal = jax.random.normal
    params = {"w": normal(keys[0], (3, 4)), "v": normal(keys[1], (4, 2))}
    return params, normal(keys[2], (8, STEPS, 3))


def _analyzed(factor, arrays):
    return gs.analyze(
        _model(factor),
        *arrays,
        loss=lambda o: (o**2).mean(),
        theory=False,
        layers=[],
        progress=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.7, 0.5, 0.2])
def test_it_ends_where_half_of_it_is_below_the_smallest_normal_number(factor, arrays):
    report = _analyzed(factor, arrays)
    (cell,) = report.recurrences
    assert cell.dtype == "float32"
    ends = {r.dtype: r for r in cell.ranges if r.direction == "backward"}
    expected = 126 * math.log(2) / -math.log(factor)
    # The gradient starts at 0.1 to 0.4 per entry.
    for dtype in ("bfloat16", "float32"):
        assert ends[dtype].end == "underflow"
        assert -3 / -math.log(factor) < ends[dtype].depth - 1 - expected < 1
        assert ends[dtype].layer == str(STEPS - int(ends[dtype].depth))
    assert cell.backward.rate == pytest.approx(-math.log(factor), rel=1e-3)
    assert "its gradient underflows float32 at step" in cell.note
    said = (
        f"over all steps is that of its law, exp({(STEPS - 1) * math.log(factor):.4g})"
    )
    assert said in cell.note
    whole = factor ** (1 - STEPS) if factor > 0.3 else math.inf
    assert cell.backward.change == pytest.approx(whole, rel=1e-2)


@pytest.mark.slow
def test_a_model_that_fixes_float32_says_so_and_one_that_does_not_underflow_is_still(
    arrays,
):
    params, x = arrays
    report = _analyzed(0.95, (params, x[:, :40]))
    (note,) = [n for n in report.notes if n.startswith("computed in float32")]
    assert "cannot be traced in float64 (Type" in note
    (cell,) = report.recurrences
    assert "underflow" not in cell.note
    tops = np.asarray(cell.gradient_max)
    assert np.all(tops >= cell.gradient_median)
    np.testing.assert_allclose(tops[:-1] / tops[1:], 0.95, rtol=1e-5)


@pytest.mark.slow
def test_a_state_that_fades_away_in_float32_underflows_as_well():
    """It gets no input but for the first step."""

    def apply(p, x):
        start = jnp.zeros((x.shape[0], 3), jnp.float32)

        def step(h, u):
            return 0.6 * h + u * p["a"][None], None

        return jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))[0] @ p["v"]

    params = {"a": jnp.ones(3), "v": jnp.ones((3, 2))}
    start = 1.0 + jax.random.uniform(jax.random.key(0), (4, 1, 3))
    x = jnp.pad(start, ((0, 0), (0, 399), (0, 0)))
    options = {"theory": False, "layers": [], "progress": False}
    (cell,) = gs.analyze(apply, params, x, **options).recurrences
    end = next(
        r for r in cell.ranges if (r.direction, r.dtype) == ("forward", "float32")
    )
    # 1.5 times 0.6^l is below 2^-126 from l = 172 on: the 173rd state.
    assert end.end == "underflow"
    assert 172 <= end.depth <= 174
    assert "its state underflows float32 at step" in cell.note
    assert cell.forward.change == pytest.approx(0.6**399, rel=1e-3)
