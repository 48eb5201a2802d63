"""The same program again, with other numbers, compiles nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstab as gs

COMPILED = []


def _listen(event, duration_secs, **_):
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append(duration_secs)


jax.monitoring.register_event_duration_secs_listener(_listen)


def compiled_by(call):
    COMPILED.clear()
    result = call()
    return result, len(COMPILED)


def dense(seed):
    """A model, and a loss that holds labels."""
    keys = jax.random.split(jax.random.key(seed), 6)
    params = [jax.random.normal(key, (6, 6)) / 6**0.5 for key in keys[:4]]
    x, labels = jax.random.normal(keys[4], (5, 6)), jax.random.normal(keys[5], (5, 6))

    def apply(params, x):
        for w in params:
            x = jnp.tanh(x @ w)
        return x

    return (apply, params, x), {"loss": lambda out: jnp.mean((out - labels) ** 2)}


def recurrent(seed):
    model = gs.models.build(
        "lstm", in_shape=(6, 3), num_outputs=2, depth=1, width=4, seed=seed
    )
    return (model, jax.random.normal(jax.random.key(seed), (5, 6, 3))), {}


def frame(report):
    return np.array([layer.forward_rms for layer in report.layers])


@pytest.mark.parametrize("made", [dense, recurrent])
def test_a_second_analysis_compiles_nothing_and_has_its_own_numbers(made):
    reports, counts = [], []
    inputs = [made(seed) for seed in (0, 1, 1)]
    for args, options in inputs:
        report, count = compiled_by(
            lambda args=args, options=options: gs.analyze(
                *args, progress=False, **options
            )
        )
        reports.append(report)
        counts.append(count)
    assert counts[0] > 0
    assert counts[1:] == [0, 0]
    assert np.all(frame(reports[0]) != frame(reports[1]))
    np.testing.assert_array_equal(frame(reports[1]), frame(reports[2]))


def test_the_first_analysis_compiles_few_programs():
    """Eight layers of three shapes: some programs for each shape, none for a layer."""
    generator = np.random.default_rng(0)
    shapes = [(5, 7), *[(7, 7)] * 6, (7, 3), (6, 5), (6, 3)]
    *params, x, labels = (generator.normal(size=shape) / 3 for shape in shapes)

    def apply(params, x):
        for w in params[:-1]:
            x = jax.nn.relu(x @ w + 0.125)
        return x @ params[-1]

    def loss(out):
        return jnp.mean((out - labels) ** 2)

    _, count = compiled_by(
        lambda: gs.analyze(apply, params, x, loss=loss, progress=False)
    )
    assert count <= 20


def test_a_loss_is_asked_again_each_time():
    """A function whose labels are bound anew is the same object, and another loss."""
    (apply, params, x), _ = dense(0)
    labels = jnp.zeros((5, 6))

    def loss(out):
        return jnp.mean((out - labels) ** 2)

    def analyzed():
        return gs.analyze(apply, params, x, loss=loss, progress=False)

    before = analyzed().loss
    labels = jnp.ones((5, 6))
    report, count = compiled_by(analyzed)
    assert count == 0
    assert report.loss != before
    np.testing.assert_allclose(report.loss, loss(apply(params, x)), rtol=1e-5)


def test_a_second_check_compiles_nothing_and_still_sees():
    def rule(scale):
        @jax.custom_vjp
        def f(x):
            return jnp.sin(x)

        f.defvjp(lambda x: (f(x), x), lambda x, w: (scale * w * jnp.cos(x),))
        return f

    points = [jnp.linspace(start, start + 1, 7) for start in (0.1, 0.3, 0.3)]
    first, count = compiled_by(lambda: gs.check(rule(1.0), points[0]))
    again, repeated = compiled_by(lambda: gs.check(rule(1.0), points[1]))
    wrong = gs.check(rule(1.1), points[2])
    assert count > 0
    assert repeated == 0
    assert first.verdict == again.verdict == gs.Verdict.PASS
    assert wrong.verdict == gs.Verdict.FAIL


def test_a_coordinate_check_compiles_nothing_that_depends_on_the_seed():
    """Each width has its programs; those of its first seed serve all others."""
    counts = []

    def make(width, key):
        counts.append(len(COMPILED))
        keys = jax.random.split(key)
        params = {
            "a": jax.random.normal(keys[0], (4, width)) / 2,
            "b": jax.random.normal(keys[1], (width, 1)) / width,
        }
        return lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"], params

    def check():
        return gs.transfer(
            make,
            jnp.ones((3, 4)),
            widths=(5, 7),
            loss=lambda y: jnp.mean(y**2),
            optimizer=optax.adam(1e-3),
            steps=1,
            seeds=4,
            progress=False,
        )

    check()
    # A model is made for each seed; the first of a width compiles, and no other.
    for first in (0, 4):
        assert counts[first + 3] == counts[first + 1] > counts[first]
    _, again = compiled_by(check)
    assert again <= 2  # the optimiser's step, which is the user's, of each width
