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
# # Watching a run
#
# The norm of the gradient grows. Is that the beginning of a divergence, or a layer
# whose scale the loss does not even see? One line of a training loop changes, and
# every step says what went through every layer, forward and backward. A history of
# the steps then names the layers that drive the growth, and since when.
#
# Install with `pip install -e ".[notebooks]"` in a checkout of gradstab.

# %%
# %matplotlib inline
import pathlib
import re
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import gradstab as gs

folder = pathlib.Path(tempfile.mkdtemp())
data = gs.data.load("digits")
x, y = jnp.asarray(data.x_train), jnp.asarray(data.y_train)
x = x.reshape(len(x), -1)

# %% [markdown]
# ## A network, and a loop around it
#
# Nothing of gradstab is in the network: three residual blocks, a normalisation with a
# gain, a head. In every batch three labels in ten are drawn anew, so that there is a
# loss that nobody learns, and noise as in ordinary training.


# %%
def normalised(h):
    return h / jnp.sqrt(jnp.mean(h**2, axis=-1, keepdims=True) + 1e-6)


def loss(params, x, y):
    h = x @ params["embed"]
    for block in params["blocks"]:
        h = h + jax.nn.relu(h @ block["in"]) @ block["out"]
    logits = (normalised(h) * params["gain"]) @ params["head"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def initial(key, width=32, depth=3):
    keys = iter(jax.random.split(key, 2 * depth + 2))

    def dense(n_in, n_out):
        return jax.random.normal(next(keys), (n_in, n_out)) / n_in**0.5

    blocks = [
        {"in": dense(width, width), "out": dense(width, width) / depth}
        for _ in range(depth)
    ]
    embed, head = dense(x.shape[1], width), dense(width, 10)
    return {"embed": embed, "blocks": blocks, "gain": jnp.ones(width), "head": head}


def batch(number):
    keys = jax.random.split(jax.random.fold_in(jax.random.key(1), number), 3)
    rows, drawn = jax.random.randint(keys[0], (64,), 0, len(y)), (64,)
    wrong = jax.random.bernoulli(keys[1], 0.3, drawn)
    return x[rows], jnp.where(wrong, jax.random.randint(keys[2], drawn, 0, 10), y[rows])


# %% [markdown]
# The line that changes is the one with `gs.value_and_grad`, where
# `jax.value_and_grad` was. Loss and gradients are bitwise what they were.
# `with_updates` adds the norms of the step, and a `History` writes one line of JSON
# for every step, so that a kill loses none.

# %%
tx = optax.adam(1e-3)


@jax.jit
def step(params, state, x, y, faster):
    (_, stats), grads = gs.value_and_grad(loss, level="full")(params, x, y)
    updates, state = tx.update(grads, state)
    updates = jax.tree.map(lambda u: faster * u, updates)
    stats = stats.with_updates(updates, params)
    return optax.apply_updates(params, updates), state, stats


def train(name, *, shift=0.0, faster=0.0, begin=200, steps=280):
    """Train; from a step on, what is planted."""
    history = gs.History(folder / name)
    params = initial(jax.random.key(0))
    state = tx.init(params)
    for number in range(steps):
        late = number >= begin
        if late and shift:
            gain, head = params["gain"] * (1 + shift), params["head"] / (1 + shift)
            params = params | {"gain": gain, "head": head}
        factor = (1 + faster) ** (number - begin) if late else 1.0
        params, state, stats = step(params, state, *batch(number), factor)
        history.append(number, stats)
    return history, stats


healthy, stats = train("healthy")
stats

# %% [markdown]
# One row per layer, in the order of the computation. *Gain* is by how much a layer
# stretches the gradient on its way back; *share*, what part of the squared global
# norm is the layer's; *radial cosine*, that of gradient and weights.
# `gs.watch.show_metrics()` says of each number how it is computed and where it
# usually is.

# %% [markdown]
# ## Two norms that grow
#
# Two more runs, each with something planted from step 200 on. In the first, every
# step moves two per cent of the scale of the head's weights into the gain before it.
# The function stays the same; the gradient of the head grows by two per cent a step.
# Weight decay that spares gains does just that. In the second the learning rate grows
# by a tenth a step until the training diverges.

# %%
histories = {
    "healthy": healthy,
    "growing head": train("growing head", shift=0.02)[0],
    "divergence": train("divergence", faster=0.1)[0],
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4), layout="constrained")
for name, history in histories.items():
    left.semilogy(history.steps, history["global_norm"], label=name, linewidth=1)
    right.semilogy(history.steps, history["loss"], label=name, linewidth=1)
left.set(xlabel="step", ylabel="norm", title="the global norm of the gradient")
right.set(xlabel="step", ylabel="cross-entropy", title="the loss")
left.legend()
plt.show()

# %% [markdown]
# By the global norm alone both grow. Asked who drives it:

# %%
for name, history in histories.items():
    print(f"{name}:\n{history.attribute(since=100)}\n")

# %% [markdown]
# The head alone, at the rate that was planted, with a loss that does not rise:
# harmless but for the clipping, which would now be set by one layer. In the
# divergence the blocks take part, and the loss rises with them. The rates have
# intervals because the steps of a training are not independent of one another.
#
# The same as a picture: the map of the layers, the loss, the norms of those layers
# that matter, and the ends of the gains and update ratios.

# %%
figure = histories["growing head"].plot()
plt.show()

# %% [markdown]
# ## A step that fails, again
#
# `fit` and `gradstab train` watch with `watch=True` and `--watch`. Of a step that is
# not finite the run keeps what reproduces it: parameters, state of the optimiser,
# batch, random keys. `replay` takes that step again, bitwise, with full statistics,
# and names the first layer, the operation and the line in which it is written.

# %%
model = gs.models.build(
    "mlp",
    in_shape=(64,),
    num_outputs=10,
    depth=8,
    width=64,
    seed=0,
    activation="relu",
    init="mean_field:2",  # twice the variance of He's: gradients grow on their way
)
optimizer = optax.sgd(optax.linear_schedule(0.0, 1.0, 100))
try:
    gs.training.fit(
        model,
        data,
        optimizer=optimizer,
        num_steps=100,
        batch_size=64,
        directory=folder / "run",
        watch=True,
        progress=False,
    )
except gs.training.NonFiniteLossError as error:
    print(str(error).replace(str(folder), "..."))

# %%
again = gs.training.replay(folder / "run", model, optimizer=optimizer)
print(re.sub(r"at \S*/", "at .../", str(again)))  # a path without its folders

# %% [markdown]
# The history of that run has the steps before. Updates and gains may show what the
# loss shows later: for which faults, by how many steps, and at how many false alarms
# on healthy runs, `python -m experiments.early_warnings` measures; the table is in
# `experiments/RESULTS.md`. The alarms beneath the map of a watched run have their
# thresholds from there.

# %%
history = gs.History.read(folder / "run")
for name in ("loss", "global_norm", "largest_gain", "largest_update_ratio"):
    print(f"{name:22s}", *(f"{value:9.3g}" for value in history[name][-7:]))
