"""Where is a tanh network critical, and where do lengths and angles come to rest?

Row 8. Constants computed by others or by another program, beside what gradstab.theory
solves: the line chi = 1 of tanh, with the length q* and the spectral variance c per
orthogonal layer (Pennington et al. 2017); fixed points and depth scales on both sides
of it at sigma_b^2 = 0.05 (Schoenholz et al. 2017) and at sigma_b = 0.3 (Poole et al.
2016); the half-stable points of GELU and SWISH (Roberts, Yaida and Hanin 2022).
Expected: sigma_w^2, q*, chi and c* within 1e-5, depth scales within the last printed
digit. Measured: as far as the printed digits go. The first tables had c = 1.42594 at
sigma_b^2 = 1, and 12.60152, 2.38799 and 0.02977 at sigma_w = 4: sums over equidistant
nodes give what stands here. Nothing is drawn, so the seed changes nothing. Seven
seconds on one core.

    python -m experiments.critical_line
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment

# sigma_b^2, sigma_w^2, q*, c, xi_q. The second is the point of Xiao et al. (2018).
LINE = (
    (0.0, 1.0, 0.0, 0.0, np.inf),
    (2.01e-5, 1.049996, 0.025919, 0.00427, 20.245),
    (1e-4, 1.086026, 0.045709, 0.01146, 11.864),
    (1e-3, 1.189190, 0.107292, 0.04405, 5.5165),
    (0.02, 1.544193, 0.371240, 0.21721, 2.0508),
    (0.05, 1.760955, 0.570048, 0.34226, 1.5211),
    (0.1, 1.986073, 0.805799, 0.47901, 1.2162),
    (0.2, 2.285152, 1.164496, 0.66708, 0.9753),
    (0.3, 2.505127, 1.461169, 0.80838, 0.8588),
    (0.5, 2.843167, 1.971031, 1.02871, 0.7333),
    (1.0, 3.443207, 3.036393, 1.42578, 0.5952),
)

# sigma_w^2, q*, chi, c*, xi_q, xi_c and xi_grad at sigma_b^2 = 0.05.
PHASES = (
    (0.5, 0.08758, 0.43199, 1.0, 1.009, 1.191, 1.191),
    (1.0, 0.19359, 0.75903, 1.0, 1.748, 3.627, 3.627),
    (1.3, 0.31532, 0.88016, 1.0, 1.785, 7.834, 7.834),
    (1.5, 0.41804, 0.93864, 1.0, 1.683, 15.79, 15.79),
    (1.7, 0.53308, 0.98674, 1.0, 1.558, 74.9, 74.9),
    (2.0, 0.72176, 1.04767, 0.74408, 1.388, 25.21, -21.48),
    (2.5, 1.06396, 1.13352, 0.44680, 1.180, 11.80, -7.979),
    (3.0, 1.42801, 1.20893, 0.29932, 1.041, 9.051, -5.270),
    (4.0, 2.19549, 1.34240, 0.16506, 0.873, 6.980, -3.396),
)

# sigma_w, q*, chi, c* at sigma_b = 0.3.
POOLE = (
    (1.3, 0.60705, 0.93981, 1.0),
    (2.5, 4.07912, 1.58524, 0.12210),
    (4.0, 12.60415, 2.36726, 0.02970),
)

# C_W, C_b and K* of the half-stable points.
HALF_STABLE = {
    "gelu": (1.98305826, 0.17292239, (3 + 17**0.5) / 2),
    "silu": (1.98800468, 0.55514317, 14.3201736),
}

PENNINGTON = "Pennington et al. 2017, Xiao et al. 2018"
SCHOENHOLZ = "Schoenholz et al. 2017"


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags: how many points; the activation is tanh(stretch x); nothing is drawn."""

    points: int = len(LINE)
    """How many points of each published table."""
    stretch: float = 1.0
    """The activation is tanh(stretch x)."""
    seed: int = 0


def run(config):
    """What gradstab solves at the published points, row by row."""

    def activation(x):
        return jnp.tanh(config.stretch * x)

    def rest(sigma_w, sigma_b):
        field = gs.mean_field(activation, sigma_w, sigma_b)
        scales = field.xi_q, field.xi_c, field.xi_grad
        return field.q_star, field.chi, field.c_star, *scales

    line = []
    for variance, *_ in LINE[: config.points]:
        sigma_w = gs.theory.critical_sigma_w(activation, variance**0.5)
        field = gs.mean_field(activation, sigma_w, variance**0.5)
        spread = gs.theory.singular_values(field, 1, orthogonal=True).variance
        line.append((sigma_w**2, field.q_star, spread, field.xi_q))
    phases = [rest(row[0] ** 0.5, 0.05**0.5) for row in PHASES[: config.points]]
    poole = [rest(row[0], 0.3)[:3] for row in POOLE[: config.points]]
    exact = [gs.models.activation("gelu"), jax.nn.silu][: config.points]
    half = [gs.theory.half_stable_point(f) for f in exact]
    half = [(p.sigma_w**2, p.sigma_b**2, p.q_star) for p in half]
    tables = {"line": line, "phases": phases, "poole": poole, "half": half}
    return {name: np.array(rows) for name, rows in tables.items()}


def claims(config, arrays):
    """The largest difference in each column, relative where numbers are above one."""
    half = np.array([*HALF_STABLE.values()])
    tables = [
        ("line", np.array(LINE)[:, 1:], PENNINGTON, "tanh, chi = 1"),
        ("phases", np.array(PHASES)[:, 1:], SCHOENHOLZ, "tanh, sigma_b^2 = 0.05"),
        ("poole", np.array(POOLE)[:, 1:], "Poole et al. 2016", "tanh, sigma_b = 0.3"),
        ("half", half, "Roberts et al. 2022, 5.3.4", "half-stable points"),
    ]
    columns = {
        "line": ("sigma_w^2", "q*", "c", "xi_q"),
        "phases": ("q*", "chi", "c*", "xi_q", "xi_c", "xi_grad"),
        "poole": ("q*", "chi", "c*"),
        "half": ("sigma_w^2", "sigma_b^2", "q*"),
    }
    return [
        _column(f"{text}: {column}", found, published, source, name)
        for name, table, source, text in tables
        for column, found, published in zip(
            columns[name], arrays[name].T, table[: config.points].T, strict=True
        )
    ]


def _column(text, found, published, source, table):
    both = np.isfinite(published)
    assert not np.isfinite(found[~both]).any()
    found, published = found[both], published[both]
    error = np.abs(found - published) / np.maximum(1, np.abs(published))
    scale = "xi" in text
    return claim(
        f"{text}, largest error of {len(published)}",
        np.max(error, initial=0),
        0,
        within=1e-3 if scale else 1e-6 if table == "half" else 1e-5,
        source=source,
        row="" if scale or table == "half" else "8",
    )


def plot(config, arrays):
    """The phase diagram: the line that was solved, and the published points on it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    published = np.array(LINE)[: config.points]
    axes.plot(arrays["line"][:, 0], published[:, 0], label=r"$\chi = 1$, solved")
    axes.plot(published[:, 1], published[:, 0], "o", mfc="none", label="published")
    axes.text(0.25, 0.6, "ordered:\ngradients vanish", transform=axes.transAxes)
    axes.text(0.6, 0.15, "chaotic:\ngradients explode", transform=axes.transAxes)
    axes.set(xlabel=r"$\sigma_w^2$", ylabel=r"$\sigma_b^2$", title="tanh")
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
