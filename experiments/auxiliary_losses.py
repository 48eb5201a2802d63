r"""Are losses on shallow layers the same thing as shortcuts?

One tutorial says that a shortcut "applies the loss directly to the shallow layers".
That is deep supervision (Lee et al. 2015): auxiliary heads give those layers a loss of
their own, beside the main one. An identity connection (He et al. 2015) adds no loss; it
makes the Jacobian of a block I + F', and the *main* loss reaches the shallow layers.
Expected in a sigmoid network of 20 layers: with auxiliary heads the first layer has a
gradient, but that of the main loss is as vanished as without them, bit for bit; with
identity connections the main loss's own gradient is there. Trained on the digits, the
plain network's main loss stays at ln 10, that of the one with identity connections
falls; with auxiliary heads it is the shallow heads that learn. One minute on one core.

    python -m experiments.auxiliary_losses
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

LEE = "Lee et al. 2015"
HE = "He et al. 2015"
init = gs.initializers


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``heads`` are the layers with a loss of their own."""

    depth: int = 20
    width: int = 64
    heads: tuple[int, ...] = (2, 8, 14)
    """Hidden layers, from 0, with a loss of their own."""
    weight: float = 0.3
    """Weight of each of these losses."""
    skip: bool = True
    """Whether the network 'identity' has skip connections."""
    rate: float = 3e-3
    """Learning rate of Adam."""
    num_steps: int = 400
    """Training steps of each network."""
    seed: int = 0


def run(config):
    """Gradient norms of the hidden layers before training, and losses after it."""
    data = gs.data.load("digits")
    kinds = {"plain": {}, "auxiliary": {"aux_heads": config.heads}}
    kinds["identity"] = {"skip": config.skip}
    found = {}
    for name, options in progress(kinds.items(), "networks"):
        model = _model(config, **options)
        main, everything = _gradients(config, model, data)
        found |= {f"{name}_main": main, f"{name}_all": everything}
        found |= {f"{name}_losses": _trained(config, model, data)}
    return found


def _model(config, **options):
    return gs.models.MLP(
        *(64, 10),
        widths=(config.width,) * config.depth,
        activation="sigmoid",
        kernel_init=init.lecun_normal(),
        **options,
        rngs=nnx.Rngs(config.seed),
    )


def _gradients(config, model, data):
    """Norms of the gradients of the hidden weights, of the main loss and of all."""
    graphdef, params = nnx.split(model)
    x, y = data.x_train[:128], data.y_train[:128]

    @functools.partial(jax.jit, static_argnums=0)
    def norms(loss, params):
        slopes = jax.grad(lambda p: loss(nnx.merge(graphdef, p)(x), y))(params)
        first = jnp.linalg.norm(slopes["input"]["dense"]["kernel"][...])
        others = slopes["blocks"]["dense"]["kernel"][...]
        return jnp.append(first, jnp.linalg.norm(others, axis=(1, 2)))

    main = norms(gs.training.cross_entropy, params)
    return np.asarray(main), np.asarray(norms(_loss(config), params))


def _loss(config):
    return gs.training.with_auxiliary(gs.training.cross_entropy, weight=config.weight)


def _trained(config, model, data):
    """Loss of the head and of every auxiliary one on the training examples."""
    fitted = gs.training.fit(
        *(model, (data.x_train, data.y_train)),
        optimizer=optax.adam(config.rate),
        loss=_loss(config),
        num_steps=config.num_steps,
        batch_size=64,
        seed=config.seed,
        progress=False,
    )
    output = fitted.model(data.x_train)
    heads = [output[0], *output[1]] if isinstance(output, tuple) else [output]
    return np.array([gs.training.cross_entropy(o, data.y_train) for o in heads])


def claims(config, arrays):
    """What each of the two brings to the first layer, and what is learnt."""
    plain = arrays["plain_main"][0]
    uninformed = math.log(10)
    return [
        claim(
            "main loss's gradient at the first layer, auxiliary heads over plain",
            *(arrays["auxiliary_main"][0] / plain, 1),
            **{"within": 0, "source": LEE},
        ),
        claim(
            "gradient of all losses at the first layer, auxiliary heads over plain",
            *(arrays["auxiliary_all"][0] / plain, 1),
            **{"between": (1e3, np.inf), "source": LEE},
        ),
        claim(
            "main loss's gradient at the first layer, identity over plain",
            *(arrays["identity_main"][0] / plain, 1),
            **{"between": (1e3, np.inf), "source": HE},
        ),
        claim(
            "main loss after training, plain",
            *(arrays["plain_losses"][0], uninformed),
            **{"within": 0.02, "source": HE},
        ),
        claim(
            "main loss after training, identity connections",
            *(arrays["identity_losses"][0], uninformed),
            **{"between": (0, 1), "source": HE},
        ),
        claim(
            "loss of the shallowest auxiliary head after training",
            *(arrays["auxiliary_losses"][-len(config.heads) :][0], uninformed),
            **{"between": (0, 1), "source": LEE},
        ),
    ]


def plot(config, arrays):
    """Gradient norms against depth before training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    layers = 1 + np.arange(config.depth)
    for name, style in (("plain", "k-"), ("auxiliary", "C1--"), ("identity", "C0-")):
        axes.plot(layers, arrays[f"{name}_main"], style, label=f"{name}, main loss")
    axes.plot(layers, arrays["auxiliary_all"], "C1-", label="auxiliary, all losses")
    axes.set_title(
        "gradients before training, with and without auxiliary losses",
        fontsize="medium",
    )
    axes.set(yscale="log", xlabel="layer", ylabel="gradient norm of the weights")
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
