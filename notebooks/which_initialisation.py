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
# # Which initialisation, and why
#
# Weights are drawn at random, so the size of a signal behind a layer is an average over
# many of them, and theory can compute it. With weights of variance $\sigma_w^2 / n$
# and biases of variance $\sigma_b^2$, a layer with activation $\varphi$ changes
#
# - the mean square $q$ of the data to
#   $\sigma_w^2 E\,\varphi(\sqrt q z)^2 + \sigma_b^2$,
# - the squared norm of a gradient by $\chi = \sigma_w^2 E\,\varphi'(\sqrt q z)^2$,
#
# with $z$ standard normal. If $\chi < 1$ gradients vanish exponentially with depth,
# if $\chi > 1$ they explode. (Poole et al. 2016; Schoenholz et al. 2017.)
#
# Install with `pip install -e ".[notebooks]"` in a checkout of gradstab.

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import numpy as np

import gradstab as gs

# %% [markdown]
# ## The phase diagram of tanh
#
# `gs.mean_field` computes both maps for any activation, and where the length comes to
# rest. On the black line $\chi = 1$.

# %%
gs.plots.phase_diagram(
    jnp.tanh, sigma_w=np.linspace(0.6, 2.6, 13), sigma_b=np.linspace(0, 0.8, 9)
)

# %% [markdown]
# ## Theory beside measurement
#
# Three networks, below, on and above the line. The analysis finds the variances and
# the activation in the program and compares by itself; `z` counts standard errors.


# %%
def make(sigma_w, depth=20, width=200):
    def network(params, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, params)[0]

    weights = jax.random.normal(jax.random.key(0), (depth, width, width))
    return network, weights * sigma_w / width**0.5


x = jax.random.normal(jax.random.key(1), (8, 200))
for sigma_w in (0.7, 1.0, 1.5):
    report = gs.analyze(*make(sigma_w), x)
    backward, field = report.growth.backward, gs.mean_field(jnp.tanh, sigma_w)
    worst = np.nanmax(np.abs(report.theory.gradient_z))
    print(
        f"sigma_w {sigma_w}: {report.verdict:10s} {backward.law:11s} "
        f"rate {backward.rate:+.4f} +- {backward.error:.4f}, "
        f"theory {0 - field.gradient_rate:+.4f}, largest |z| {worst:.1f}"
    )

# %% [markdown]
# The rate is by how much the logarithm of the gradient's norm rises from one layer to
# the next: positive, and it falls on its way back to the first. Theory's is that at the
# fixed point of the length, which is reached only after some layers. On the line the
# law is no exponential but a power of the depth.
#
# ## Names and what they mean
#
# LeCun, Glorot and He are choices of $\sigma_w$: 1, 1 (for square layers) and
# $\sqrt 2$. Which of them is right depends on the activation.

# %%
for name, activation in {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
}.items():
    critical = gs.theory.critical_sigma_w(activation)
    chis = [gs.mean_field(activation, s).chi for s in (1.0, 2**0.5)]
    print(
        f"{name:8s} chi is {chis[0]:.3f} with LeCun, {chis[1]:.3f} with He; "
        f"critical sigma_w {critical:.3f}"
    )

# %% [markdown]
# ## Gaussian or orthogonal?
#
# A mean is not everything: some directions may be stretched while others vanish. The
# singular values of one wide Gaussian layer spread over a wide range, and with depth
# the spread grows; orthogonal weights keep a critical tanh network close to an
# isometry. (Pennington et al. 2017.)

# %%
field = gs.mean_field(jnp.tanh, 1.0)
report = gs.analyze(*make(1.0), x, theory=False)
gs.plots.spectra(report, field=field)

# %%
point = gs.mean_field(jnp.tanh, 1.05**0.5, 2.01e-5**0.5)
for orthogonal in (False, True):
    values = gs.theory.singular_values(point, 50, orthogonal=orthogonal)
    print(
        f"orthogonal: {orthogonal!s:5s} variance of squared singular values at depth "
        f"50: {values.variance:.3g}, largest {values.largest:.3g}"
    )

# %% [markdown]
# ## In practice
#
# `gs.initializers` has them all under their names; with `gs.analyze` any of them is
# checked in a second. An initialisation that looks at the data (LSUV) needs no theory:
# `gs.lsuv(model, x)`.

# %%
for init in ("lecun_normal", "glorot_normal", "he_normal", "orthogonal"):
    model = gs.models.build(
        "mlp",
        in_shape=(200,),
        num_outputs=10,
        depth=30,
        width=200,
        seed=0,
        activation="relu",
        init=init,
    )
    report = gs.analyze(model, x, layers=(), theory=False)
    print(f"relu, {init:14s} {report.verdict}")
