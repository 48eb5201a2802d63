"""Rules around Pallas kernels, and other calls that no one drops."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

import gradstab as gs
from gradstab.gradcheck.laws.dependence import read_by
from gradstab.gradcheck.laws.identities import identities
from gradstab.gradcheck.subject.problem import problem
from gradstab.testing import assert_grads

pytestmark = pytest.mark.cases

X = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
QUICK = {"at": "given", "transformations": False, "locate": False}


def _tanh(x_ref, *y_refs):
    for y_ref in y_refs:
        y_ref[...] = jnp.tanh(x_ref[...])


def _slope(y_ref, w_ref, dx_ref, *, factor=1.0):
    dx_ref[...] = factor * w_ref[...] * (1 - y_ref[...] ** 2)


def _call(kernel, *arrays, results=1, blocks=None):
    like = jax.ShapeDtypeStruct(arrays[0].shape, arrays[0].dtype)
    tiles = {}
    if blocks:
        spec = pl.BlockSpec((blocks, like.shape[1]), lambda i: (i, 0))
        tiles = {
            "grid": (like.shape[0] // blocks,),
            "in_specs": [spec] * len(arrays),
            "out_specs": [spec] * results if results > 1 else spec,
        }
    shapes = [like] * results if results > 1 else like
    return pl.pallas_call(kernel, out_shape=shapes, interpret=True, **tiles)(*arrays)


def _op(*, blocks=None, residuals=False, kernels=2, factor=1.0):
    """A rule whose forward pass calls the kernel itself."""
    forward = functools.partial(_call, _tanh, blocks=blocks)
    backward = functools.partial(_slope, factor=factor)

    def fwd(x):
        if residuals:
            return forward(x, results=2)
        y = forward(x)
        return y, y

    def bwd(y, w):
        if kernels == 2:
            return (_call(backward, y, w, blocks=blocks),)
        return (factor * w * (1 - y**2),)

    op = jax.custom_vjp(lambda x: forward(x))
    op.defvjp(fwd, bwd)
    return op


OPS = {
    "one kernel": _op(kernels=1),
    "kernels in both passes": _op(),
    "a grid": _op(blocks=4),
    "residuals of the kernel": _op(residuals=True, kernels=1),
    "a grid and residuals": _op(blocks=2, residuals=True),
    "two calls in one function": lambda x: _op()(_op()(x)),
}


@pytest.mark.parametrize("op", OPS.values(), ids=OPS.keys())
def test_a_right_rule_around_a_kernel_breaks_no_law(op):
    task = problem(op, (X,))
    with_rng = task.leaves, np.random.default_rng(0)
    assert [i.name for i in identities(task, *with_rng) if not i.holds] == []


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS.values(), ids=OPS.keys())
def test_a_right_rule_around_a_kernel_passes(op):
    assert gs.check(op, X).verdict is gs.Verdict.PASS
    assert gs.audit(lambda x: jnp.sum(op(x)), X).verdict is gs.Verdict.PASS
    assert_grads(op, X)


def test_a_wrong_rule_around_a_kernel_fails():
    assert gs.check(_op(factor=1.01), X, **QUICK).verdict is gs.Verdict.FAIL


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:jax.experimental.pallas.ops:DeprecationWarning")
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_kernels_of_jax_itself_pass(name):
    module = importlib.import_module(f"jax.experimental.pallas.ops.gpu.{name}")
    norm = functools.partial(getattr(module, name), num_warps=1, interpret=True)
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = (2, 4, 16), (16,), (16,)
    args = [jax.random.normal(*pair) for pair in zip(keys, shapes, strict=True)]
    assert gs.check(norm, *args, **QUICK).verdict is gs.Verdict.PASS


def test_a_kernel_that_two_calls_share_is_found_to_overlap():
    kept = {}

    def fwd(x):
        kept["y"] = _call(_tanh, x)
        return kept["y"], None

    op = jax.custom_vjp(lambda x: _call(_tanh, x))
    op.defvjp(fwd, lambda _, w: (_call(_slope, kept["y"], w),))
    task = problem(op, (X,), modes=("reverse",))
    found = identities(task, task.leaves, np.random.default_rng(0))
    broken = {i.name: i.leaf for i in found if not i.holds}
    assert broken["calls that overlap"] == "args[0]"


def _read(f, *args, wanted=None):
    return read_by(jax.make_jaxpr(f)(*args), wanted)


def _host(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((8, 8), jnp.float32), x)


UNREAD = {
    "a kernel": lambda x, y: (_call(_tanh, x), jnp.sin(y)),
    "a kernel under jit": jax.jit(lambda x, y: (_call(_tanh, x), jnp.sin(y))),
    "a callback": lambda x, y: (_host(x), jnp.sin(y)),
    "a kernel in a scan": lambda x, y: jax.lax.scan(
        lambda c, _: ((_call(_tanh, c[0]), jnp.sin(c[1])), None), (x, y), length=2
    )[0],
    "a kernel in a loop": lambda x, y: jax.lax.while_loop(
        lambda c: c[1][0, 0] > 0.9, lambda c: (_call(_tanh, c[0]), 0.5 * c[1]), (x, y)
    ),
    "a kernel in a branch": lambda x, y: jax.lax.cond(
        y[0, 0] > 0, lambda x, y: (_call(_tanh, x), y), lambda x, y: (x, -y), x, y
    ),
    "a kernel under remat": jax.checkpoint(lambda x, y: (_call(_tanh, x), jnp.sin(y))),
    "a kernel with a rule": lambda x, y: (_op()(x), jnp.sin(y)),
}


@pytest.mark.parametrize("f", UNREAD.values(), ids=UNREAD.keys())
def test_what_only_an_unneeded_call_reads_is_not_needed(f):
    assert _read(f, X, X, wanted=[False, True]) == [False, True]
    assert _read(f, X, X, wanted=[True, False])[0]


READ = {
    "a carry that feeds another": lambda x, y: jax.lax.scan(
        lambda c, _: ((c[0], c[1] + c[0]), None), (x, y), length=3
    )[0],
    "the number of turns": lambda x, y: jax.lax.while_loop(
        lambda c: c[0] < 9.0, lambda c: (2 * c[0], c[1] + 1), (x, y)
    ),
    "which branch": lambda x, y: (x, jax.lax.cond(x > 0, jnp.sin, jnp.cos, y)),
}


@pytest.mark.parametrize("f", READ.values(), ids=READ.keys())
def test_what_reaches_a_result_in_a_roundabout_way_is_needed(f):
    assert _read(f, 1.0, 2.0, wanted=[False, True]) == [True, True]
