r"""How far is a random attention matrix from one of rank one?

With independent Gaussian logits of standard deviation s, the softmax over T tokens is
A = u u^T + N, where u = 1 / sqrt(T) is kept exactly, A u = u and N u = 0. The entries
of N are those of exp(g) / sum exp(g) about their mean: T N_ij has the variance

    sigma^2 = E exp(2 g) / (E exp(g))^2 - 1 = exp(s^2) - 1.

A square matrix of such entries has norms up to 2 sigma / sqrt(T) (Bai and Yin), so s_1
= 1 is followed by s_2 = 2 sigma / sqrt(T): rank collapse in width (Nait Saada et al.
2025). At s = 0.5 that is s_2 sqrt(T) = 1.0659.

How near at T tokens: A A^T = u u^T + N N^T exactly, so s_1 is at least 1 and to first
order 1 + sigma^2 / 2 T; twice that excess is accepted. The edge 2 sigma lies lower by
the mean of Tracy and Widom's law, 1.2065 of its units (Johnstone 2001), and higher by a
share kappa / 2 T for the fourth cumulant kappa = 5.9 of log-normal entries (after Lee
and Schnelli 2018); that rows are normalised lowers it by some 3 / T again. Accepted is
what the first two come to if they did not oppose each other, 3.8 % and 1.2 % at T = 128
and 512, and four standard errors of a mean that scatters for the same two reasons: in
all 5.7 % and 1.8 %. NumPy alone finds -1.2 % over 600 matrices and -0.7 % over 24. Were
sigma = s, as of logits that are small, the limit would be 6 % lower. Queries and keys
of few dimensions are another matter: their logits are not independent, and s_2 is
larger (``--head 8``: 2.65 at T = 128).

All matrices of one size are the layers of one network. Seed 1: 1.0495 and 1.0584. Ten
seconds.

    python -m experiments.attention_rank
"""

import dataclasses

import jax
import numpy as np

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment

NAIT_SAADA = "Nait Saada et al. 2025"
STANDARD_ERRORS = 4

# Mean and standard deviation of Tracy and Widom's law of real matrices.
TRACY_WIDOM = -1.2065, 1.2680


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; with ``head``, logits are products of queries and keys of that size."""

    tokens: tuple[int, ...] = (128, 512)
    """Numbers of tokens, the sides of the attention matrices."""
    matrices: int = 16
    """How many matrices of each size."""
    deviation: float = 0.5
    """Standard deviation of the logits."""
    head: int | None = None
    """Size of queries and keys whose products the logits are; independent logits by
    default."""
    seed: int = 0


def run(config):
    """The largest singular values of every matrix, by number of tokens."""
    keys = jax.random.split(jax.random.key(config.seed), len(config.tokens))
    pairs = zip(config.tokens, keys, strict=True)
    return {str(tokens): _values(config, tokens, key) for tokens, key in pairs}


def _attend(params, x):
    """Values mixed by one attention matrix after the other; ``x`` is (1, tokens)."""
    for logits in params:
        x = x @ jax.nn.softmax(logits).T
    return x


def _values(config, tokens, key):
    """(matrices, tokens) singular values in descending order."""
    key_g, key_x = jax.random.split(key)
    params = [
        _logits(config, tokens, key) for key in jax.random.split(key_g, config.matrices)
    ]
    x = jax.random.normal(key_x, (1, tokens))
    options = {"theory": False, "progress": False, "seed": config.seed}
    report = gs.analyze(_attend, params, x, max_dense=tokens, **options)
    spectra = [layer.jacobian for layer in report.layers]
    values = [spectrum.values[0] for spectrum in spectra if spectrum]
    return np.reshape(values, (config.matrices, tokens))


def _logits(config, tokens, key):
    if config.head is None:
        return config.deviation * jax.random.normal(key, (tokens, tokens))
    q, k = jax.random.normal(key, (2, tokens, config.head))
    return config.deviation * q @ k.T / config.head**0.5


def limit(deviation):
    """2 sigma, and the fourth cumulant of log-normal entries of variance 1."""
    m = np.exp(deviation**2)
    return 2 * (m - 1) ** 0.5, m**4 + 2 * m**3 + 3 * m**2 - 6


def _width(config, tokens):
    """How far the mean of s_2 sqrt(T) may be from 2 sigma, as a share of it."""
    roots = np.sqrt([tokens - 1, tokens - 2])
    # Johnstone 2001: the largest squared singular value, and the units it moves in.
    edge, unit = roots.sum() ** 2, roots.sum() * np.sum(1 / roots) ** (1 / 3)
    mean, scatter = np.abs(TRACY_WIDOM) * unit / (2 * edge)
    cumulant = limit(config.deviation)[1]
    scatter = np.hypot(scatter, cumulant**0.5 / (2 * tokens))
    error = scatter / config.matrices**0.5
    return mean + cumulant / (2 * tokens) + STANDARD_ERRORS * error


def claims(config, arrays):
    """The first two singular values at every number of tokens."""
    second, _ = limit(config.deviation)
    found = []
    for tokens in config.tokens:
        values = arrays[str(tokens)]
        excess = (second / 2) ** 2 / (2 * tokens)
        for text, scaled, published, accepted in (
            ("s_1", values[:, 0], 1, {"between": (1, 1 + 2 * excess)}),
            (
                "s_2 sqrt(T)",
                values[:, 1] * tokens**0.5,
                second,
                {"relative": _width(config, tokens)},
            ),
        ):
            measured = claim(
                f"{text} of random attention over T={tokens}",
                *(scaled.mean(), published),
                **accepted,
                error=scaled.std(ddof=1) / len(scaled) ** 0.5,
                **{"source": NAIT_SAADA, "row": "24"},
            )
            found.append(measured)
    return found


def plot(config, arrays):
    """All singular values of the first matrices, and the quarter circle's end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for tokens in config.tokens:
        values = arrays[str(tokens)][0] * tokens**0.5
        axes.plot(np.arange(1, tokens + 1) / tokens, values, ".", label=f"T={tokens}")
    axes.axhline(limit(config.deviation)[0], color="black", ls=":", label="2 sigma")
    axes.set(yscale="log", ylim=(1e-2, None))
    axes.set_title("attention matrices before training", fontsize="medium")
    axes.set(xlabel="share of directions", ylabel="singular value x sqrt(T)")
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
