r"""How do gradients grow with depth when every block adds its input?

Blocks x + alpha V relu(W x) multiply E||J||^2 by 1 + alpha^2 sigma_v^2 sigma_w^2 / 2,
exactly and at any width: 2^L at alpha = 1, which explodes, and nearly e at any depth if
alpha = 1 / sqrt(L) (Yang and Schoenholz 2017). Without the identity the same blocks
keep E||J||^2 at 1. Blocks x + tanh(W x) grow like exp((4/3) sqrt(2/pi) sqrt(L)), slower
than any exponential: ln E||J||^2 = 4.83 after 25. A block whose last layer or whose
factor starts at zero (Fixup, Zhang et al. 2019; SkipInit, De and Smith 2020) is the
identity: its Jacobian is I, exactly. So "a shortcut applies the loss directly to the
shallow layers", as one tutorial has it, is another method (`auxiliary_losses`): this
one makes the Jacobian I + F'. All of it held for seeds 1 to 6: 993 to 1045 (1024
expected), 2.68 to 2.75 (2.7048), 4.73 to 4.85 (4.812). With two tanh networks instead
of four `gs.analyze` could not be certain of any growth. Forty seconds on one core.

    python -m experiments.residual
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment

YANG = "Yang and Schoenholz 2017"
TANH_RATE = 4 / 3 * (2 / np.pi) ** 0.5
init = gs.initializers


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``identity`` is the factor of what is added to each branch."""

    identity: float = 1.0
    """Factor of what is added to each branch."""
    deep: int = 100
    """Blocks of the deep networks."""
    shallow: int = 10
    """Blocks of the shallow networks."""
    width: int = 128
    networks: int = 96
    examples: int = 16
    tanh_width: int = 500
    """Units of the tanh networks."""
    tanh_networks: int = 4
    """How many tanh networks."""
    zero: bool = True
    """Start the last two networks with the zeros that make their blocks the
    identity."""
    seed: int = 0


def run(config):
    """Squared gains of random networks, growth along tanh ones, and starting maps."""
    keys = jax.random.split(jax.random.key(config.seed), 5)
    deep, shallow = config.deep, config.shallow
    gain = functools.partial(_gains, config)
    few = max(config.networks // 2, 2)
    return {
        "full": gain(keys[0], config.networks, shallow, 1.0, config.identity),
        "scaled": gain(keys[1], few, deep, deep**-0.5, config.identity),
        "plain": gain(keys[2], 4 * config.networks, shallow, 1.0, 0.0),
        **_tanh(config, keys[3]),
        "fixup": _blocks(config, last_init=init.zeros),
        "skip_init": _blocks(config, skip_init=True),
    }


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _gains(config, key, networks, depth, alpha, identity):
    """Of every network the mean of ||J u||^2 over its examples, (networks,)."""

    def block(w, v, x):
        return identity * x + alpha * jax.nn.relu(x @ w) @ v

    def body(carry, key):
        w, v = jax.random.normal(key, (2, networks, config.width, config.width))
        w, v = w * config.width**-0.5, v * (2 / config.width) ** 0.5
        return jax.jvp(functools.partial(block, w, v), carry[:1], carry[1:]), None

    key_x, key_u, key_w = jax.random.split(key, 3)
    shape = networks, config.examples, config.width
    x, u = jax.random.normal(key_x, shape), jax.random.normal(key_u, shape)
    (_, after), _ = jax.lax.scan(body, (x, u), jax.random.split(key_w, depth))
    return jnp.sum(after**2, axis=(1, 2)) / jnp.sum(u**2, axis=(1, 2))


def _tanh(config, key):
    """Logarithm of the squared gradient at the input over that after each block."""
    width = config.tanh_width

    def make(key):
        stem, stack = jnp.eye(width), (config.deep, width, width)
        return {"stem": stem, "w": jax.random.normal(key, stack) * width**-0.5}

    def apply(params, x):
        def block(h, w):
            return config.identity * h + jnp.tanh(h @ w), None

        return jax.lax.scan(block, x @ params["stem"], params["w"])[0]

    key_w, key_x = jax.random.split(key)
    params = gs.initializations(make, key_w, config.tanh_networks)
    x = jax.random.normal(key_x, (config.examples, width))
    options = {"layers": (), "theory": False, "precision": "own", "seed": config.seed}
    report = gs.analyze(apply, params, x, ensemble=True, **options)
    assert report.ensemble is not None
    logs = 2 * np.log(report.ensemble.gradient_norm.values)
    law = np.array(report.growth.backward.law)
    return {"tanh": (logs[:, :1] - logs).mean(axis=0), "tanh_law": law}


def _blocks(config, **options):
    """Singular values of the blocks of a residual network at its start."""
    if not config.zero:
        options = {}
    model = gs.models.ResNet(
        *(config.shallow, 10),
        **{"width": config.shallow, "depth": config.shallow, "activation": "relu"},
        **{"kernel_init": init.he_normal(), **options},
        rngs=nnx.Rngs(config.seed),
    )
    x = jax.random.normal(jax.random.key(config.seed), (4, config.shallow))
    layers = gs.analyze(model, x, examples=4, theory=False, seed=config.seed).layers
    blocks = [s.jacobian for s in layers if s.name.startswith("blocks")]
    return np.array([j.values for j in blocks if j is not None])


def claims(config, arrays):
    """The laws of growth with depth, and the two identities."""
    roots = np.sqrt(np.arange(config.deep + 1))
    errors = [_misfit(arrays["tanh"], law) for law in (roots, roots**2)]
    relu = functools.partial(gs.theory.residual, jax.nn.relu, sigma_w=1, sigma_v=2**0.5)
    tanh = gs.theory.residual(jnp.tanh, 25, sigma_w=1.0).log_growth
    return [
        *_gain_claims(config, arrays, relu),
        claim(
            f"ln of squared gain of 25 tanh residual blocks, width {config.tanh_width}",
            arrays["tanh"][min(25, config.deep)],
            tanh,
            **{"relative": 0.05, "source": f"{YANG}, theorem 5", "row": "13"},
        ),
        claim(
            "AIC of growth like L less that of growth like sqrt L, tanh residual",
            config.deep * np.log(errors[1] / errors[0]),
            0,
            **{"between": (10, np.inf), "source": YANG, "row": "13"},
        ),
        claim(
            "gs.analyze names the law of the tanh residual gradient: exp-sqrt",
            arrays["tanh_law"] == "exp-sqrt",
            1,
            **{"within": 0, "source": YANG, "row": "13"},
        ),
        *(
            claim(
                f"largest difference of a singular value of a {name} block from 1",
                np.abs(arrays[key] - 1).max(),
                0,
                **{"within": 0, "source": source},
            )
            for name, key, source in (
                ("Fixup", "fixup", "Zhang et al. 2019"),
                ("SkipInit", "skip_init", "De and Smith 2020"),
            )
        ),
    ]


def _gain_claims(config, arrays, relu):
    deep, shallow = config.deep, config.shallow
    bounded = np.exp(relu(deep, alpha=deep**-0.5).log_growth)
    grown = np.exp(relu(shallow).log_growth)
    rows = [
        (f"{shallow} relu residual blocks, alpha 1", "full", grown, 0.1, "12"),
        (f"{deep} relu residual blocks, alpha 1/sqrt L", "scaled", bounded, 0.05, "12"),
        (f"{shallow} of the blocks without the identity", "plain", 1.0, 0.1, ""),
    ]
    return [
        claim(
            f"mean squared gain of {text}",
            arrays[key].mean(),
            expected,
            **{"relative": tolerance, "source": YANG, "row": row},
            error=arrays[key].std(ddof=1) / len(arrays[key]) ** 0.5,
        )
        for text, key, expected, tolerance, row in rows
    ]


def _misfit(logs, law):
    """Mean squared distance of the best multiple of the law, plus a constant."""
    columns = np.stack([law[1:], np.ones(len(law) - 1)], axis=1)
    best = np.linalg.lstsq(columns, logs[1:])[0]
    return np.mean((logs[1:] - columns @ best) ** 2)


def plot(config, arrays):
    """Growth of the tanh network beside its theory, and gains of the relu ones."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    blocks = np.arange(config.deep + 1)
    gains = gs.theory.residual(jnp.tanh, config.deep, sigma_w=1.0).gains
    left.plot(blocks, arrays["tanh"], label=f"width {config.tanh_width}")
    left.plot(blocks[1:], np.cumsum(np.log(gains)), "--", label="infinite width")
    left.plot(blocks, TANH_RATE * np.sqrt(blocks), ":", label=r"$1.064 \sqrt{L}$")
    left.set_title("residual tanh networks", fontsize="medium")
    left.set(xlabel="blocks x + tanh(Wx)", ylabel=r"$\ln E\|J\|^2$")
    legend(left)
    names = ["full", "scaled", "plain"]
    right.boxplot([arrays[name] for name in names], tick_labels=names, whis=(2.5, 97.5))
    right.set_title("residual relu networks", fontsize="medium")
    right.set(yscale="log", xlabel="relu blocks", ylabel=r"$\|J u\|^2$ per network")
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
