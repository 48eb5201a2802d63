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
# # Does it transfer?
#
# A learning rate is tuned on a narrow network and used for a wide one. That is right
# only if one step does the same to the data at both widths. `gs.transfer` measures
# whether it does, and names the weights for which it does not; `gs.parametrize` mends
# them, in any model, unedited.
#
# Install with `pip install -e ".[notebooks]"` in a checkout of gradstab.

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import gradstab as gs

data = gs.data.load("digits")
x, y = jnp.asarray(data.x_train), jnp.asarray(data.y_train)
x = x.reshape(len(x), -1)

# %% [markdown]
# ## A model that is made at any width
#
# Nothing of gradstab is in it: an embedding, two residual blocks, a head. All that is
# needed is a function of the width and a random key. It gives `(apply, params)`, or a
# model of Flax, Equinox or Haiku.


# %%
def apply(params, x):
    h = x @ params["embed"]
    for block in params["blocks"]:
        h = h + jax.nn.relu(normalised(h) @ block["in"]) @ block["out"]
    return normalised(h) @ params["head"]


def normalised(h):
    return h / jnp.sqrt(jnp.mean(h**2, axis=-1, keepdims=True) + 1e-6)


def make(width, key):
    keys = iter(jax.random.split(key, 6))

    def dense(n_in, n_out):
        return jax.random.normal(next(keys), (n_in, n_out)) / n_in**0.5

    blocks = [
        {"in": dense(width, 2 * width), "out": dense(2 * width, width)}
        for _ in range(2)
    ]
    return apply, {
        "embed": dense(64, width),
        "blocks": blocks,
        "head": dense(width, 10),
    }


def loss(logits, labels=y[:8]):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


# %% [markdown]
# ## A coordinate check
#
# At every width, from four initialisations, the model takes a few steps of Adam on
# the same examples. Slopes are powers of the width: 0 is flat, and what has a slope of
# 1 is twice as large in a model twice as wide. Each has a standard error, from the
# seeds and from what a power law does not fit.

# %%
widths = (64, 128, 256, 512)
check = gs.transfer(
    make,
    x[:8],
    widths=widths,
    loss=loss,
    optimizer=optax.adam(1e-5),
    steps=2,
    seeds=4,
    progress=False,
)
check

# %% [markdown]
# The weights between axes that grow, and the head, move the data the more the wider
# the model is: their updates are aligned with the data, so that as many equal terms
# add up as the model is wide. A learning rate that is right at width 64 is eight times
# too large for them at 512, but right for the embedding. No single rate will do.

# %%
for cause in check.causes:
    print(cause)

# %% [markdown]
# How much the data that leave a layer have changed, with the fitted lines:

# %%
check.plot(quantity="update")

# %% [markdown]
# ## The same model in muP
#
# `gs.parametrize` makes the model at the base width and at twice that, and reads from
# the program what each axis does. Its `make` rescales initial values, its `transform`
# the updates; at the base width, where things were tuned, nothing changes.

# %%
rules = gs.parametrize(make, base_width=64, optimizer="adam", inputs=x[:8])
rules

# %%
again = gs.transfer(
    rules.make,
    x[:8],
    widths=widths,
    loss=loss,
    optimizer=optax.chain(optax.adam(1e-5), rules.transform),
    steps=2,
    seeds=4,
    progress=False,
)
again

# %% [markdown]
# The update of every weight does the same to the data at all widths. Where so few
# seeds settle nothing, as for the small slope that the logits may have, the check says
# that it cannot tell, and how many seeds would.

# %%
again.plot(quantity="update")

# %% [markdown]
# ## And the learning rate?
#
# What the check promises: the best learning rate of the narrow model is that of the
# wide one. Every width is trained with every rate, all rates in one program.


# %%
def search(make, optimizer):
    return gs.scaling.learning_rate_transfer(
        make,
        x,
        targets=y,
        batch_size=32,
        widths=(64, 128, 256),
        loss=loss,
        optimizer=optimizer,
        learning_rates=[2.0**power for power in range(-13, -4)],
        steps=40,
        seeds=3,
        progress=False,
    )


found = {
    "standard": search(make, optax.adam),
    "muP": search(
        rules.make, lambda rate: optax.chain(optax.adam(rate), rules.transform)
    ),
}
figure, axes = plt.subplots(1, 2, figsize=(9.6, 4), layout="constrained", sharey=True)
for ax, (name, rates) in zip(axes, found.items(), strict=True):
    rates.plot(ax=ax)
    ax.set_title(name)
plt.show()

# %%
for name, rates in found.items():
    print(f"{name}: {' '.join(rates.sentences())}\n")

# %% [markdown]
# The optimum of the standard model falls as it grows; in muP it stays within what so
# small a search can tell. `python -m experiments.learning_rate_transfer` does it for
# transformers up to width 512, with more steps and seeds. For gradstab's own models,
# and for functions in a file, the command does both: `gradstab transfer --model mlp
# --widths 64,128,256 --parametrization mup`, and `--learning-rates` for the search.
#
# Depth and batch size are checked alike, with `vary="depth"` and `vary="batch"`.
