"""Programs as JAX will write them by default: the same layers, numbers and verdicts."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hijax_primitives import WithVJP, of
from jax.ad_checkpoint import checkpoint_name

import gradstab as gs
from gradstab.network import find_layers

pytestmark = [pytest.mark.cases, pytest.mark.usefixtures("quick_compiler")]

FLAGS = ("jax_custom_vjp3", "jax_custom_jvp3", "jax_remat3")
CHOICES = [(flag,) for flag in FLAGS] + [FLAGS]

needs_flags = pytest.mark.skipif(
    not all(hasattr(jax.config, flag) for flag in FLAGS),
    reason="this jax writes its programs in one way only",
)


@contextlib.contextmanager
def turned(flags, on):
    """The flags set for a while."""
    before = [getattr(jax.config, flag) for flag in flags]
    for flag in flags:
        jax.config.update(flag, on)
    try:
        yield
    finally:
        for flag, value in zip(flags, before, strict=True):
            jax.config.update(flag, value)


def hard_tanh():
    """A custom_vjp whose forward pass calls itself."""
    f = jax.custom_vjp(lambda x: jnp.clip(x, -1.0, 1.0))
    f.defvjp(
        lambda x: (f(x), jnp.abs(x) < 1), lambda inside, w: (jnp.where(inside, w, 0),)
    )
    return f


def deep(params, x):
    """Four layers, each checkpointed, with a rule of each kind."""
    clip = hard_tanh()

    @functools.partial(jax.checkpoint, static_argnums=2)
    def layer(w, x, activation):
        return activation(checkpoint_name(x @ w, "product"))

    for w, activation in zip(params, (jax.nn.relu, clip) * 2, strict=True):
        x = layer(w, x, activation)
    return x


KEYS = jax.random.split(jax.random.key(0), 5)
PARAMS = [jax.random.normal(key, (6, 6)) / 2 for key in KEYS[:4]]
INPUT = jax.random.normal(KEYS[4], (5, 6))


def _report(apply):
    return gs.analyze(apply, PARAMS, INPUT, theory=False, progress=False)


def _numbers(report):
    names = ("forward_rms", "saturated_fraction", "dead_fraction", "gradient_rms")
    return np.array([[getattr(layer, n) for n in names] for layer in report.layers])


@needs_flags
@pytest.mark.parametrize("flags", CHOICES, ids=" ".join)
def test_an_analysis_does_not_depend_on_how_jax_writes_its_programs(flags):
    with turned(FLAGS, on=False):
        before = _report(deep)
    with turned(flags, on=True):
        after = _report(deep)
    assert [la.name for la in after.layers] == [la.name for la in before.layers]
    assert len(after.layers) == 4
    assert after.verdict == before.verdict
    np.testing.assert_allclose(_numbers(after), _numbers(before), rtol=1e-5)
    assert np.all(np.isfinite(_numbers(after)))


@needs_flags
def test_boundaries_are_found_by_given_names():
    def apply(params, x):
        for i, w in enumerate(params):
            x = x + checkpoint_name(jnp.tanh(x @ w), f"block{i}")
        return x

    with turned(FLAGS, on=False):
        before = find_layers(apply, PARAMS, (INPUT,), boundaries=r"block\d").names
    with turned(FLAGS, on=True):
        assert (
            find_layers(apply, PARAMS, (INPUT,), boundaries=r"block\d").names == before
        )


def _mlp(activation):
    def apply(params, x):
        for w in params:
            x = activation(x @ w)
        return x

    return apply


def test_a_primitive_with_a_vjp_only_is_analysed_like_the_function_it_stands_for():
    tanh = of(WithVJP, jnp.tanh, lambda a, w: (w * (1 - jnp.tanh(*a) ** 2),))
    plain, report = _report(_mlp(jnp.tanh)), _report(_mlp(tanh))
    assert [la.name for la in report.layers] == [la.name for la in plain.layers]
    np.testing.assert_allclose(_numbers(report), _numbers(plain), rtol=1e-5)
    for one, other in zip(report.layers, plain.layers, strict=True):
        np.testing.assert_allclose(
            one.jacobian.values, other.jacobian.values, rtol=1e-4
        )


def test_what_cannot_be_looked_into_is_named_beside_the_missing_number():
    @jax.custom_jvp
    def foreign(x):
        def once(state):
            return state[0] + 1, jnp.tanh(state[1])

        return jax.lax.while_loop(lambda state: state[0] < 1, once, (0, x))[1]

    foreign.defjvp(lambda p, t: (foreign(*p), t[0] * (1 - foreign(*p) ** 2)))
    report = _report(_mlp(foreign))
    for layer in report.layers:
        assert np.isnan(layer.dead_fraction)
        assert "saturation unknown: foreign cannot be looked into" in layer.note
