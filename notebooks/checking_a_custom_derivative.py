# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Checking a custom derivative
#
# A rule of differentiation written by hand (`jax.custom_vjp`, `jax.custom_jvp`, a
# kernel's backward pass) can be wrong in ways that training does not show: it only gets
# worse. This notebook has a softmax cross-entropy with such a mistake. It is found,
# located, mended, and kept right by one line in a test.
#
# Install with `pip install -e ".[notebooks]"` in a checkout of gradstab.

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import optax

import gradstab as gs
from gradstab.testing import assert_grads

logits = jax.random.normal(jax.random.key(0), (8, 5))
labels = jnp.array([0, 1, 2, 3, 4, 0, 1, 2])


# %% [markdown]
# ## A rule with a mistake
#
# The gradient of the mean cross-entropy with respect to the logits is
# $(p - \text{one-hot}) / n$ for a batch of $n$.


# %%
def plain(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def with_rule(backward):
    rule = jax.custom_vjp(plain)
    rule.defvjp(lambda *args: (plain(*args), args), backward)
    return rule


def wrong(args, w):
    logits, labels = args
    p = jax.nn.softmax(logits)
    return w * (p - jax.nn.one_hot(labels, 5)), None


loss = with_rule(wrong)
check = gs.check(loss, logits, labels)
check

# %% [markdown]
# Three lines matter:
#
# - the **verdict**: PASS, FAIL, or INCONCLUSIVE if the differences see too little to
#   say. A check that sees nothing never passes.
# - the **resolution**: the smallest relative error that this check would have noticed.
# - the **place and cause**: which entry, what the rule says there, what was expected
#   with an error bar, and what is probably wrong: here that a mean was differentiated
#   as if it were a sum.
#
# ## Why it can be trusted
#
# The differences are taken at many steps. A right rule agrees better and better as the
# step gets smaller, until rounding takes over; a wrong one stops at its error.

# %%
check.plot()

# %%
right = with_rule(lambda args, w: (wrong(args, w)[0] / len(args[0]), None))
mended = gs.check(right, logits, labels)
mended.plot()

# %%
print(mended)

# %% [markdown]
# ## Right here, wrong elsewhere
#
# A rule may be right at the point given and wrong where its arguments are large. So
# the point is moved too: to large, small, tied and negative arguments, and to odd
# shapes, where the last block of a kernel is not full.


# %%
@jax.custom_jvp
def softplus(x):
    return jnp.log1p(jnp.exp(x))


@softplus.defjvp
def _(primals, tangents):
    (x,), (v,) = primals, tangents
    return softplus(x), v * jnp.exp(x) / (1 + jnp.exp(x)) * jnp.where(x > 3, 0.99, 1.0)


print(gs.check(softplus, jnp.linspace(-1, 1, 7)))

# %% [markdown]
# ## In a test
#
# `assert_grads` raises with the same message. Before and after mending:

# %%
try:
    assert_grads(loss, logits, labels)
except AssertionError as error:
    print(str(error).splitlines()[0])
assert_grads(right, logits, labels)

# %% [markdown]
# ## Every rule inside of a model
#
# `gs.audit` walks a program, finds every custom rule, and checks each by itself with
# the inputs that it has there.


# %%
def model(w, x):
    return loss(softplus(x @ w), labels)


x = jax.random.normal(jax.random.key(2), (8, 3))
audit = gs.audit(model, jax.random.normal(jax.random.key(1), (3, 5)), x)
print("\n".join(x for x in str(audit).splitlines() if "defined at" not in x))
