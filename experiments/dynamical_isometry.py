"""Are tanh networks with orthogonal weights nearly isometric, and Gaussian ones not?

Row 10. At the critical point of tanh with small biases, sigma_w^2 = 1.05 and
sigma_b^2 = 2.01e-5 (Xiao et al. 2018), the squared singular values of the Jacobian of L
layers have relative variance L c with orthogonal weights, c = 0.00427, and L (c + 1)
with Gaussian ones (Pennington, Schoenholz and Ganguli 2017): `gs.theory`. At width 200
and depth 50: 0.2135 and 50.2. Relu has c = 1, so no weights make it isometric: L and
2 L. Measured: the Jacobian from the first pre-activations to the last, network by
network. Half a minute on one core.

    python -m experiments.dynamical_isometry
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

PENNINGTON = "Pennington et al. 2017, equation 22"
KINDS = ("orthogonal", "Gaussian")


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; so many networks of each kind: Gaussian ones scatter more."""

    width: int = 200
    depth: int = 50
    kinds: tuple[str, ...] = KINDS
    """Kinds of weights; networks has a number for each."""
    networks: tuple[int, ...] = (40, 150)
    sigma_w: float = 1.05**0.5
    sigma_b: float = 2.01e-5**0.5
    seed: int = 0


def run(config):
    """Relative variances, and all singular values of the first network."""
    arrays = {}
    # At the fixed point from the start, so that all layers are alike.
    field = gs.mean_field(jnp.tanh, config.sigma_w, config.sigma_b)
    size = np.sqrt(field.q_star)
    for number, kind in enumerate(config.kinds):
        key = jax.random.fold_in(jax.random.key(config.seed), number)
        keys = jax.random.split(key, config.networks[number])
        found = [_network(config, kind, size, key) for key in progress(keys, kind)]
        arrays[f"variance {kind}"] = np.array([variance for variance, _ in found])
        first = np.asarray(found[0][1])
        arrays[f"values {kind}"] = np.linalg.svd(first, compute_uv=False)
    return arrays


def _network(config, kind, size, key):
    """Relative variance of a network's squared singular values, and its Jacobian."""
    key_w, key_b, key_x = jax.random.split(key, 3)
    width, depth = config.width, config.depth
    init = {
        "orthogonal": gs.initializers.orthogonal(config.sigma_w),
        "Gaussian": gs.initializers.mean_field(config.sigma_w),
    }[kind]
    keys = jax.random.split(key_w, depth)
    w = jax.vmap(lambda key: init(key, (width, width), jnp.float32))(keys)
    b = config.sigma_b * jax.random.normal(key_b, (depth, width))
    z = float(size) * jax.random.normal(key_x, (width,))
    jacobian = _jacobian(z, w, b)
    return float(_variance(jacobian)), jacobian


@jax.jit
def _jacobian(z, w, b):
    """Of the last pre-activations with respect to the first, z."""

    def layer(pair, wb):
        h = jnp.tanh(pair[0])
        j = wb[0].T @ ((1 - h**2)[:, None] * pair[1])
        return (h @ wb[0] + wb[1], j), None

    return jax.lax.scan(layer, (z, jnp.eye(len(z))), (w, b))[0][1]


@jax.jit
def _variance(jacobian):
    """Of its squared singular values, over the square of their mean."""
    gram = jacobian.T @ jacobian
    return len(gram) * jnp.sum(gram**2) / jnp.trace(gram) ** 2 - 1


def claims(config, arrays):
    """The relative variance of squared singular values, and theory's."""
    field = gs.mean_field(jnp.tanh, 1.05**0.5, 2.01e-5**0.5)
    found = []
    for kind in config.kinds:
        law = gs.theory.singular_values(
            field, config.depth, orthogonal=kind == "orthogonal"
        )
        variances = arrays[f"variance {kind}"]
        error = np.std(variances, ddof=1) / np.sqrt(len(variances))
        found.append(
            claim(
                f"variance of squared singular values, {kind}, L={config.depth}",
                np.mean(variances),
                law.variance,
                relative=0.05 if kind == "orthogonal" else 0.1,
                error=error,
                source=PENNINGTON,
                row="10",
            )
        )
    return found


def plot(config, arrays):
    """All singular values, in descending order."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for kind in config.kinds:
        values = arrays[f"values {kind}"]
        share = np.arange(1, len(values) + 1) / len(values)
        axes.semilogy(share, np.maximum(values, 1e-6), label=kind)
    axes.set_title("Jacobians from input to output", fontsize="medium")
    axes.set(xlabel="share of directions", ylabel="singular value")
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
