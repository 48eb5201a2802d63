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
# # Training, clipped and unclipped
#
# Exploding gradients show up as one step that throws everything away. Clipping limits
# the step. It treats the symptom, and it only acts if it really clips, so
# `gs.clipping.recorded` keeps count.
#
# Install with `pip install -e ".[notebooks]"` in a checkout of gradstab.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradstab as gs

data = gs.data.load("digits")
x, y = data.x_train[:64], data.y_train[:64]


def loss(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


# %% [markdown]
# ## A network that explodes
#
# Twelve ReLU layers with weights of variance $4 / n$, twice those of He: each layer
# stretches the signal, and the gradient on its way back, by $\sqrt 2$. The verdict
# comes before any training.


# %%
def network():
    return gs.models.build(
        "mlp",
        in_shape=(64,),
        num_outputs=10,
        depth=12,
        width=64,
        seed=0,
        activation="relu",
        init="mean_field:2",
    )


report = gs.analyze(network(), x, loss=loss, layers=(), theory=False)
print(report)

# %% [markdown]
# ## Three runs
#
# Stochastic gradient descent as it is, clipped by value, and clipped by the norm of
# all gradients together. Clipping by value changes the direction of the step, clipping
# by norm does not. A run whose loss is no longer finite stops and says where it began.

# %%
rules = {
    "unclipped": optax.identity(),
    "by value": gs.clipping.clip_by_value(0.1),
    "by global norm": gs.clipping.clip_by_global_norm(1.0),
}
runs = {}
for name, rule in rules.items():
    tx = optax.chain(gs.clipping.recorded(rule), optax.sgd(0.05))
    try:
        run = gs.training.fit(
            network(), data, optimizer=tx, num_steps=300, batch_size=64, progress=False
        )
    except gs.training.NonFiniteLossError as error:
        print(f"{name:15s} {error}")
        continue
    runs[name] = run
    print(
        f"{name:15s} last loss {np.mean(run.history['loss'][-20:]):.3f}, clipped in "
        f"{100 * np.mean(run.history['clipped']):.0f} % of the steps, "
        f"test accuracy {run.test['accuracy']:.2f}"
    )

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4), layout="constrained")
for name, run in runs.items():
    left.semilogy(run.history["step"], run.history["loss"], label=name, linewidth=1)
    norms = run.history["pre_norm"]
    right.semilogy(run.history["step"], norms, label=name, linewidth=1)
left.set(xlabel="step", ylabel="cross-entropy", title="training loss")
right.set(xlabel="step", ylabel="norm", title="the gradient before it is clipped")
for axes in (left, right):
    axes.legend(title=None if len(runs) == len(rules) else "those that did not break")
plt.show()

# %% [markdown]
# Every step is clipped: clipping makes a network trainable whose initialisation is
# wrong. It does not mend the initialisation.
#
# ## Layer against step
#
# The network that is clipped by value, looked at every fifty steps: one column per
# look, in decades. The gradient grows towards the first layers (bottom); training
# itself evens it out.

# %%
model, columns, steps = network(), [], range(0, 201, 50)
tx = optax.chain(gs.clipping.clip_by_value(0.1), optax.sgd(0.05))
for step in steps:
    found = gs.analyze(model, x, loss=loss, layers=(), theory=False)
    columns.append([np.median(layer.gradient_norm) for layer in found.layers])
    if step < steps[-1]:
        model = gs.training.fit(
            model,
            data,
            optimizer=tx,
            num_steps=50,
            batch_size=64,
            progress=False,
            seed=step,
        ).model
names = [layer.name for layer in found.layers]
gs.plots.heat_map(columns, layers=names, steps=list(steps))

# %% [markdown]
# ## A recipe that never clips
#
# With He's initialisation and ReLU the same threshold is hardly ever reached: a
# clipping experiment has to report its clip rate.

# %%
tame = gs.models.build(
    "mlp",
    in_shape=(64,),
    num_outputs=10,
    depth=4,
    width=64,
    seed=0,
    activation="relu",
    init="he_normal",
)
tx = optax.chain(gs.clipping.recorded(gs.clipping.clip_by_value(1.0)), optax.sgd(0.05))
run = gs.training.fit(
    tame, data, optimizer=tx, num_steps=300, batch_size=64, progress=False
)
print(f"clipped in {100 * np.mean(run.history['clipped']):.1f} % of the steps")
