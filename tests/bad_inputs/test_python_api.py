"""Arguments that make no sense are refused by us, at once, with what was given."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gradstab as gs

pytestmark = pytest.mark.cases

P, X = jnp.eye(3), jnp.ones((4, 3))
DENSE = nn.Dense(3)
VARIABLES = {"params": {"kernel": jnp.ones((3, 3)), "bias": jnp.zeros(3)}}
KEY = jax.random.key(0)


def f(p, x):
    return jnp.tanh(x @ p)


def analyze(*args, **options):
    return gs.analyze(*args, **{"progress": False} | options)


def with_option(**options):
    return lambda: analyze(f, P, X, **options)


def checked(*args, **options):
    return lambda: gs.check(*(args or (jnp.sin, 1.0)), **options)


def built(kind="mlp", **options):
    needed = {"in_shape": (3,), "num_outputs": 2}
    return lambda: gs.models.build(kind, **needed | options)


def field(*args, **options):
    return lambda: gs.mean_field(*(args or (jnp.tanh, 1.5)), **options)


def fitted(model=None, data=(X, X), optimizer=None, **options):
    model = model or nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    optimizer = optimizer or optax.sgd(0.1)
    needed = {"optimizer": optimizer, "num_steps": 1, "progress": False}
    return lambda: gs.training.fit(model, data, **needed | options)


# The call, and a part of what is said.
CASES = {
    "no inputs": (lambda: analyze(f), "no inputs"),
    "no inputs but parameters": (lambda: analyze(f, P), "no inputs"),
    "an array for a model": (lambda: analyze(P, X), "cannot analyse a"),
    "None for a model": (lambda: analyze(None, X), "cannot analyse a NoneType"),
    "text for a model": (lambda: analyze("model", X), "cannot analyse a str"),
    "a number for a model": (lambda: analyze(3, P, X), "cannot analyse a int"),
    "None for inputs": (lambda: analyze(f, P, None), "every input must have"),
    "text for inputs": (lambda: analyze(f, P, "x"), "inputs[0] is str"),
    "an array of text": (
        lambda: analyze(f, P, np.array(["a"])),
        "inputs[0] is an array",
    ),
    "an array of objects": (
        lambda: analyze(f, P, np.array([None])),
        "inputs[0] is an array",
    ),
    "lists for arrays": (lambda: analyze(f, P, [[1.0, 2.0]]), "got shapes ()"),
    "a scalar for inputs": (lambda: analyze(f, P, jnp.ones(())), "got shapes ()"),
    "no examples": (lambda: analyze(f, P, jnp.ones((0, 3))), "at least one"),
    "a linen module alone": (lambda: analyze(DENSE, X), "needs its variables"),
    "None for variables": (lambda: analyze((DENSE, None), X), "not a NoneType"),
    "a pair of one": (lambda: analyze((DENSE,), X), "cannot analyse a tuple"),
    "inputs in the pair": (lambda: analyze((DENSE, VARIABLES, X)), "cannot analyse"),
    "no inputs of a module": (lambda: analyze(_linear()), "no inputs"),
    "text in the result": (lambda: analyze(lambda p, x: "s", P, X), "returns a str"),
    "no result": (lambda: analyze(lambda p, x: None, P, X), "0 floating arrays"),
    "a result without examples": (
        lambda: analyze(lambda p, x: jnp.sum(x @ p), P, X),
        "without the 4 examples",
    ),
    "integers as a result": (
        lambda: analyze(lambda p, x: jnp.argmax(x @ p, 1), P, X),
        "0 floating arrays",
    ),
    "two results": (lambda: analyze(lambda p, x: (x @ p, x), P, X), "which one"),
    "loss=3": (with_option(loss=3), "loss must be a function"),
    "loss='mse'": (with_option(loss="mse"), "got 'mse'"),
    "a loss without a value": (with_option(loss=lambda y: None), "got None"),
    "a loss of each entry": (with_option(loss=lambda y: y), "got shape (4, 3)"),
    "a loss of two values": (with_option(loss=lambda y: (y.sum(), 1)), "a scalar"),
    "a loss without arguments": (with_option(loss=lambda: 0.0), "loss(output): "),
    "a loss that is text": (with_option(loss=lambda y: "a"), "loss(output): "),
    "output='out'": (with_option(output="out"), "output must be a function"),
    "output that is changed": (with_option(output=lambda r: 2 * r), "unchanged"),
    "output of nothing": (with_option(output=lambda r: None), "unchanged"),
    "apply_kwargs=3": (with_option(apply_kwargs=3), "apply_kwargs must be a dict"),
    "batched='no'": (with_option(batched="no"), "batched must be True or False"),
    "batched=None": (with_option(batched=None), "batched must be True or False"),
    "ensemble=3": (with_option(ensemble=3), "ensemble must be True or False"),
    "theory='yes'": (with_option(theory="yes"), "theory must be True or False"),
    "progress='x'": (with_option(progress="x"), "progress must be True or False"),
    "boundaries=3": (with_option(boundaries=3), "boundaries must be regular"),
    "boundaries='('": (with_option(boundaries="("), "boundaries='('"),
    "boundaries of numbers": (with_option(boundaries=[3]), "boundaries must be"),
    "boundaries that match nothing": (with_option(boundaries="z"), "matches no"),
    "examples=0": (with_option(examples=0), "examples must be a whole number"),
    "examples=1.5": (with_option(examples=1.5), "examples must be a whole number"),
    "examples='all'": (with_option(examples="all"), "examples must be a whole"),
    "examples=True": (with_option(examples=True), "examples must be a whole"),
    "top_k=0": (with_option(top_k=0), "top_k must be a whole number from 1"),
    "top_k=2.5": (with_option(top_k=2.5), "top_k must be a whole number from 1"),
    "max_dense=-1": (with_option(max_dense=-1), "max_dense must be a whole number"),
    "max_dense='x'": (with_option(max_dense="x"), "max_dense must be a whole"),
    "max_bytes=0": (with_option(max_bytes=0), "max_bytes must be at least"),
    "max_bytes=1e9": (with_option(max_bytes=1e9), "max_bytes must be a whole"),
    "max_seconds=0": (with_option(max_seconds=0), "max_seconds must be a number"),
    "max_seconds='1m'": (with_option(max_seconds="1m"), "max_seconds must be a"),
    "layers=3": (with_option(layers=3), "layers must be names"),
    "layers='('": (with_option(layers="("), "is no regular expression"),
    "layers='x.*'": (with_option(layers="x.*"), "matches no layer"),
    "layers of another network": (with_option(layers=["x"]), "no layer 'x'"),
    "layers beyond the last": (with_option(layers=[5]), "no layer 5"),
    "layers=[True]": (with_option(layers=[True]), "names or positions, got True"),
    "layers=[None]": (with_option(layers=[None]), "names or positions, got None"),
    "precision='float16'": (with_option(precision="float16"), "precision must be"),
    "precision=64": (with_option(precision=64), "precision must be"),
    "seed=-1": (with_option(seed=-1), "seed must be a whole number from 0"),
    "seed=1.5": (with_option(seed=1.5), "seed must be a whole number from 0"),
    "seed=2**64": (with_option(seed=2**64), "seed must be a whole number from 0"),
    "seed=None": (with_option(seed=None), "seed must be a whole number from 0"),
    "check(3)": (checked(3), "expected a function"),
    "check(None)": (checked(None, X), "expected a function"),
    "check without arguments": (checked(jnp.sin, None), "floating"),
    "check of text": (checked(jnp.sin, "a"), "floating"),
    "check of integers": (checked(jnp.sin, np.ones(3, int)), "floating"),
    "check of no entries": (checked(jnp.sin, jnp.ones(0)), "floating"),
    "check of no result": (checked(lambda x: None, 1.0), "floating"),
    "check of a text result": (checked(lambda x: "a", 1.0), "floating"),
    "check of a comparison": (checked(lambda x: x > 0, 1.0), "floating"),
    "rtol=0": (checked(rtol=0), "rtol must be a number above 0 below 1"),
    "rtol=-1": (checked(rtol=-1), "rtol must be a number above 0 below 1"),
    "rtol=5": (checked(rtol=5), "rtol must be a number above 0 below 1"),
    "rtol='a'": (checked(rtol="a"), "rtol must be a number above 0 below 1"),
    "rtol=nan": (checked(rtol=np.nan), "rtol must be a number above 0 below 1"),
    "check's seed=-1": (checked(seed=-1), "seed must be a whole number"),
    "check's seed=2**70": (checked(seed=2**70), "seed must be a whole number"),
    "check's seed='x'": (checked(seed="x"), "seed must be a whole number"),
    "at='nowhere'": (checked(at="nowhere"), "at is one of"),
    "at=3": (checked(at=3), "at is one of"),
    "order=7": (checked(order=7), "order is one of"),
    "modes='sideways'": (checked(modes="sideways"), "modes is a tuple"),
    "modes=()": (checked(modes=()), "modes is a tuple"),
    "check's max_seconds=-1": (checked(max_seconds=-1), "max_seconds must be"),
    "check's max_bytes=0": (checked(max_bytes=0), "max_bytes must be a whole"),
    "exhaustive='yes'": (checked(exhaustive="yes"), "exhaustive must be True"),
    "locate=1": (checked(locate=1), "locate must be True or False"),
    "check's progress='x'": (checked(progress="x"), "progress must be True"),
    "check's precision": (checked(precision="float16"), "precision is one of"),
    "reference=3": (checked(reference=3), "reference: expected a function"),
    "two oracles": (checked(reference=jnp.sin, expect=jnp.cos), "not both"),
    "audit(3)": (lambda: gs.audit(3), "expected a function or a model"),
    "inconclusive='maybe'": (
        lambda: gs.testing.assert_grads(jnp.sin, 1.0, inconclusive="maybe"),
        "inconclusive is one of",
    ),
    "assert_grads(3)": (lambda: gs.testing.assert_grads(3, 1.0), "a function"),
    "make=3": (lambda: gs.initializations(3, KEY, 2), "make must be a function"),
    "num=0": (lambda: gs.initializations(lambda k: P, KEY, 0), "num must be"),
    "num=1.5": (lambda: gs.initializations(lambda k: P, KEY, 1.5), "num must be"),
    "key=0": (lambda: gs.initializations(lambda k: P, 0, 2), "key must be a PRNG"),
    "make without its key": (
        lambda: gs.initializations(lambda k: P, KEY, 2),
        "initialisations are equal",
    ),
    "mean_field(3)": (field(3, 1.0), "activation must be a function"),
    "mean_field('tanh')": (field("tanh", 1.0), "got 'tanh'"),
    "sigma_w=-1": (field(jnp.tanh, -1.0), "sigma_w must be a number from 0"),
    "sigma_w=nan": (field(jnp.tanh, np.nan), "sigma_w must be a number from 0"),
    "sigma_w='a'": (field(jnp.tanh, "a"), "sigma_w must be a number from 0"),
    "sigma_b=-1": (field(jnp.tanh, 1.0, -1.0), "sigma_b must be a number from 0"),
    "q0=inf": (field(q0=np.inf), "q0 must be a number from 0"),
    "softmax": (field(jax.nn.softmax, 1.0), "on each entry by itself"),
    "lengths(-1)": (lambda: field()().lengths(-1), "depth must be a whole number"),
    "lengths(1.5)": (lambda: field()().lengths(1.5), "depth must be a whole"),
    "lengths(10**9)": (lambda: field()().lengths(10**9), "from 1 to 1000000"),
    "an unknown model": (built("mpl"), "known: mlp, resnet"),
    "in_shape=3": (built(in_shape=3), "in_shape must be a sequence"),
    "in_shape=(0,)": (built(in_shape=(0,)), "in_shape must be a whole number"),
    "num_outputs=0": (built(num_outputs=0), "num_outputs must be a whole number"),
    "seed of a model": (built(seed=2**70), "seed must be a whole number"),
    "depth='x'": (built(depth="x"), "depth must be a whole number from 1"),
    "depth=2.5": (built(depth=2.5), "depth must be a whole number from 1"),
    "width=10**6": (built(width=10**6), "of memory are at hand"),
    "dtype='float17'": (built(dtype="float17"), "dtype must be a floating dtype"),
    "param_dtype=int": (built(param_dtype="int32"), "param_dtype must be a float"),
    "widths=3": (built(widths=3), "widths must be a sequence"),
    "init=3": (built(init=3), "an initialiser's name is text"),
    "activation=3": (built(activation=3), "no activation named 3"),
    "use_bias='no'": (built(use_bias="no"), "use_bias must be True or False"),
    "an unknown data set": (lambda: gs.data.load("nosuch"), "known are"),
    "a name that is none": (lambda: gs.data.load(3), "known are"),
    "half an example": (
        lambda: gs.data.load("digits", num_train=1.5),
        "num_train must be a whole number",
    ),
    "a negative seed of data": (lambda: gs.data.load(seed=-1), "seed must be a whole"),
    "no time steps": (lambda: gs.data.load("adding", time_steps=0), "time_steps must"),
    "a report from a number": (lambda: gs.load(3), "path must name a file"),
    "an image file that is none": (lambda: gs.data.read_idx(None), "path must name"),
    "an audit of text": (lambda: gs.audit(jnp.tanh, "a"), "nothing to audit"),
    "an audit of a number": (lambda: gs.audit(3, 1.0), "expected a function"),
    "clipping to text": (
        lambda: gs.clipping.clip_by_global_norm("a"),
        "max_norm must be a number",
    ),
    "no quantile": (
        lambda: gs.clipping.clip_by_percentile(None),
        "percentile must be a number",
    ),
    "a record of a number": (lambda: gs.clipping.recorded(3), "tx must be an Optax"),
    "a guard of a number": (
        lambda: gs.clipping.skip_nonfinite(0.1),
        "inner must be an Optax",
    ),
    "a model that is a number": (fitted(3), "model must be an flax.nnx.Module"),
    "an optimiser that is a number": (fitted(optimizer=3), "optimizer must be an Op"),
    "data that are a number": (fitted(data=3), "data is a int"),
    "a folder that is a number": (fitted(directory=3), "directory must name a"),
    "a console that is a number": (
        lambda: gs.check(jnp.sin, 1.0).show(3),
        "console must be a rich",
    ),
    "clipping below zero": (
        lambda: gs.clipping.clip_by_global_norm(-1.0),
        "-1.0",
    ),
    "an unknown name": (lambda: gs.analyse, "it has: Audit, GradCheck"),
}


def _linear():
    return nnx.Linear(3, 3, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(("call", "words"), CASES.values(), ids=CASES.keys())
def test_a_mistake_is_refused_by_us(call, words):
    with pytest.raises(gs.errors.UserError) as info:
        call()
    assert isinstance(
        info.value, ValueError | TypeError | LookupError | AttributeError | MemoryError
    )
    assert words in str(info.value)


def test_more_examples_than_there_are_is_noted():
    report = analyze(f, P, X, examples=1000)
    assert "examples=1000: the batch has 4" in report.notes
    assert report.made["jacobian_examples"] == 4
