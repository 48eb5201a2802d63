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
# # Through time: recurrent networks
#
# A recurrent network applies one and the same map at every time step. What a gradient
# loses in one step it loses in every step, so over a hundred steps a factor 0.9 is
# $0.9^{100} \approx 3 \cdot 10^{-5}$. The growth exponents of such a product have a
# name: Lyapunov exponents. Positive: an error grows, and gradients explode. All
# negative: the past is forgotten.
#
# Install with `pip install -e ".[notebooks]"` in a checkout of gradstab.

# %%
# %matplotlib inline
import jax
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

import gradstab as gs

x = jax.random.normal(jax.random.key(0), (4, 100, 2))  # examples, time steps, features


def analysed(cell, recurrent_init=None, **options):
    model = cell(
        2,
        1,
        hidden=32,
        kernel_init=gs.initializers.lecun_normal(),
        recurrent_init=recurrent_init or gs.initializers.orthogonal(),
        rngs=nnx.Rngs(0),
        **options,
    )
    return gs.analyze(model, x, theory=False).recurrences[0]


# %% [markdown]
# ## Four cells
#
# `report.recurrences` has, for every recurrent layer, the gradient at each time step,
# the Jacobian of the state from one step to the next, and the Lyapunov spectrum.

# %%
cells = {
    "tanh RNN": analysed(gs.models.RNN),
    "identity RNN": analysed(
        gs.models.RNN, activation="relu", recurrent_init=gs.initializers.identity_rnn()
    ),
    "LSTM, forget bias 0": analysed(gs.models.LSTM, forget_bias=0.0),
    "LSTM, forget bias 2": analysed(gs.models.LSTM, forget_bias=2.0),
}
for name, recurrence in cells.items():
    print(
        f"{name:22s} largest Lyapunov exponent {recurrence.exponents[:, 0].mean():+.3f}"
    )

# %%
figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
for name, recurrence in cells.items():
    norms = np.median(np.asarray(recurrence.gradient_norms), axis=-1)
    axes.semilogy(np.where(norms > 0, norms, np.nan), label=name)
axes.set(xlabel="time step", ylabel="norm, median over the examples")
axes.set_title("the gradient of the state; a curve ends where it is exactly zero")
axes.legend()
plt.show()

# %% [markdown]
# The identity RNN hands its gradient on as it is, through the units that are alive:
# their exponents are zero. ReLU units at zero hand on nothing, and what they carried is
# lost for good: exponents of minus infinity, of another number in each example.
#
# The gradient comes from the last step, on the right. The forget gate is a factor
# $\sigma(b_f)$ on the cell's way through time: with a bias of 0 one half is lost per
# step, with a bias of 2 only an eighth. (Jozefowicz et al. 2015.) Chrono initialisation
# draws the biases so that the units forget over times up to T (Tallec and Ollivier
# 2018).

# %% [markdown]
# ## The Lyapunov spectrum
#
# One exponent for every direction of the state. The few near zero are what the network
# can remember. (`report.plot()` has panels of the gradient along time and of these.)

# %%
figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
for name, recurrence in cells.items():
    spectrum = np.median(recurrence.exponents, axis=0)  # over the examples
    known = np.isfinite(spectrum)
    lost = f" (and {np.sum(~known)} of minus infinity)" if not known.all() else ""
    ranks = 1 + np.flatnonzero(known)
    axes.plot(ranks, spectrum[known], ".-", label=name + lost)
axes.axhline(0, color="grey", linewidth=0.8)
axes.set(xlabel="rank", ylabel="Lyapunov exponent per step", ylim=(-3, 1.2))
axes.set_title("Lyapunov spectra")
axes.legend(loc="upper right", fontsize="small")
plt.show()

# %% [markdown]
# ## The edge of chaos
#
# A tanh network with recurrent weights $g Q$, $Q$ orthogonal: below $g = 1$ no signal
# survives without inputs, above it states become chaotic. (Sompolinsky et al. 1988.)
# Inputs saturate the units and push the edge to larger g: here near 2.

# %%
for g in (0.8, 1.0, 1.2, 2.0):
    init = gs.initializers.orthogonal(g)
    cell = analysed(gs.models.RNN, recurrent_init=init)
    print(f"g = {g}: largest Lyapunov exponent {cell.exponents[:, 0].mean():+.3f}")
