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
# # A first look: where does the gradient go?
#
# A network learns layer by layer only if the gradient of the loss reaches every layer.
# On its way back the gradient is multiplied by one Jacobian per layer. If each shrinks
# it by a factor 0.24, twenty of them leave $0.24^{20} \approx 10^{-12}$: the first
# layers get nothing and do not learn. This notebook analyses such a network, reads
# what the analysis says, and mends it.
#
# Install with `pip install -e ".[notebooks]"` in a checkout of gradstab.

# %%
# %matplotlib inline
import optax

import gradstab as gs

data = gs.data.load("digits")  # 8 x 8 images of handwritten digits
x, y = data.x_train[:64], data.y_train[:64]


def loss(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def network(**options):
    return gs.models.build(
        "mlp", in_shape=(64,), num_outputs=10, depth=20, width=100, seed=1, **options
    )


# %% [markdown]
# ## Twenty sigmoid layers
#
# `gs.analyze` takes any model as it is, runs one batch through it, and finds the layers
# by itself, in the traced program.

# %%
report = gs.analyze(network(activation="sigmoid"), x, loss=loss)
report

# %% [markdown]
# How to read the table, from the last layer (the head) up to the first:
#
# - **forward rms** is the size of the data that leave the layer. Here it stays near
#   0.5: looking at activations alone, nothing is wrong.
# - **grad. norm** is the size of the gradient of the loss at the layer's output. It
#   falls by the same factor in every layer.
# - **largest sv** and **rms sv** are singular values of the layer's Jacobian: by how
#   much it stretches a vector at most, and on average. The average is the factor.
#
# The second table puts the theory of wide networks beside it: with weights of variance
# 1 / fan-in, $\sqrt{E\,\sigma'(z)^2} = 0.236$. The column z counts the standard errors
# between the two.
#
# The figure draws it against depth, with the laws that were fitted (dashed) and theory
# (dotted); `report.plot(kind="signals", ax=...)` draws one panel on axes of yours.

# %%
report.plot()

# %% [markdown]
# The verdict follows from the *law* by which the gradient shrinks, its rate and the
# depth, not from a threshold:

# %%
print(report)
growth = report.growth.backward
print(growth.law, f"rate {growth.rate:.3f} +- {growth.error:.3f} per layer")

# %% [markdown]
# ## The whole ladder
#
# The gradient's norm is one number. The Jacobian of the whole network has one growth
# exponent for every direction: the logarithm of a singular value over the number of
# layers. All are far below zero, so no direction gets through. The dashed line is the
# mean of what was measured of one gradient, the dotted one what the theory of wide
# networks says of it.

# %%
gs.plots.exponents(report)

# %% [markdown]
# ## What mends it?
#
# Each candidate is a change of one argument, analysed in the same way.

# %%
candidates = {
    "as it is": {"activation": "sigmoid"},
    "tanh": {"activation": "tanh"},
    "relu, He initialisation": {"activation": "relu", "init": "he_normal"},
    "sigmoid, layer norm": {"activation": "sigmoid", "norm": "layer"},
    "sigmoid, identity connections": {"activation": "sigmoid", "skip": True},
}
for name, options in candidates.items():
    found = gs.analyze(network(**options), x, loss=loss, layers=(), theory=False)
    print(f"{name:30s} {found.verdict:10s} {found.growth.backward.law}")

# %% [markdown]
# ## Does it train?
#
# The verdict speaks of the network as it is initialised. Two hundred steps say whether
# it mattered.

# %%
for name in ("as it is", "relu, He initialisation"):
    run = gs.training.fit(
        network(**candidates[name]),
        data,
        optimizer=optax.adam(1e-3),
        num_steps=200,
        batch_size=64,
        progress=False,
    )
    print(f"{name:30s} test accuracy {run.test['accuracy']:.2f}")

# %% [markdown]
# With sigmoid units the accuracy is that of guessing one digit in ten; with ReLU and
# He's initialisation the same depth trains. *Which initialisation, and why* explains
# where the factors come from.
