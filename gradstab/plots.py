"""Figures of reports, of theory, and of gradients over training.

Every function returns a `matplotlib.figure.Figure`; save it with ``savefig``, or show
it in a notebook by naming it. The colour-blind can tell the colours apart.
"""

import numpy as np

from gradstab.theory import (
    critical_sigma_w,
    mean_field,
    singular_value_density,
)

# Okabe and Ito (2008).
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")

_FEW = 6  # curves that can be told apart


def spectra(report, /, *, layers=None, field=None):
    """Singular values of layer Jacobians as densities, with theory where it is known.

    Args:
        report: a `gradstab.Report` with singular values.
        layers: names of the layers; by default at most six, spread over the depth.
        field: the `gradstab.theory.MeanField` of the network; draws the density that
            wide layers with Gaussian weights have at its fixed point.

    Returns:
        A figure: densities over the values, pooled over the examples.

    Raises:
        ValueError: if the report has no singular values, or none that are not zero.

    >>> import jax, gradstab as gs, jax.numpy as jnp
    >>> w = jax.random.normal(jax.random.key(0), (32, 32)) / 32**0.5
    >>> x = jax.random.normal(jax.random.key(1), (4, 32))
    >>> report = gs.analyze(lambda w, x: jnp.tanh(x @ w), w, x)
    >>> gs.plots.spectra(report).axes[0].get_xlabel()
    'singular value of the Jacobian'
    """
    known = [layer for layer in report.layers if layer.jacobian is not None]
    chosen = [x for x in known if layers is None or x.name in layers]
    if layers is None and len(chosen) > _FEW:
        places = np.linspace(0, len(chosen) - 1, _FEW).round().astype(int)
        chosen = [chosen[i] for i in places]
    pooled = {x.name: np.asarray(x.jacobian.values).ravel() for x in chosen}
    pooled = {name: values[values > 0] for name, values in pooled.items()}
    if not any(len(values) for values in pooled.values()):
        raise ValueError("the report has no singular values of these layers")
    figure, axes = _figure()
    top = 1.05 * max(values.max() for values in pooled.values() if len(values))
    bins = np.linspace(0, top, 60)
    for (name, values), layer in zip(pooled.items(), chosen, strict=True):
        # Of all values, so that those that are zero are missing from the area.
        share = len(values) / layer.jacobian.values.size
        heights, _ = np.histogram(values, bins, density=True)
        axes.stairs(share * heights, bins, label=name)
    if field is not None:
        s = np.linspace(top / 400, top, 200)
        density = singular_value_density(field, 1, s)
        axes.plot(s, density, "k--", label="theory, wide layer")
    axes.set(xlabel="singular value of the Jacobian", ylabel="density")
    axes.legend(fontsize="small")
    return figure


def exponents(report, /, *, rate=None):
    """The ladder of growth exponents of the input-output Jacobian, by rank.

    Args:
        report: a `gradstab.Report` with exponents.
        rate: what theory says of the gradient's norm, per layer.

    Returns:
        A figure: mean and range over the examples; zero neither shrinks nor grows.

    Raises:
        ValueError: if the report has no exponents.
    """
    if report.exponents is None:
        raise ValueError("the report has no exponents; its notes say why")
    rows = np.atleast_2d(np.asarray(report.exponents))
    figure, axes = _figure()
    ranks = np.arange(1, rows.shape[1] + 1)
    axes.fill_between(ranks, rows.min(axis=0), rows.max(axis=0), alpha=0.3, linewidth=0)
    axes.plot(ranks, rows.mean(axis=0), ".-", label="measured")
    axes.axhline(0.0, color="grey", linewidth=0.8)
    if rate is not None:
        axes.axhline(rate, color="k", linestyle="--", label="theory, gradient's norm")
    axes.set(xlabel="rank", ylabel="growth exponent per layer (natural logarithm)")
    axes.legend(fontsize="small")
    return figure


def heat_map(norms, /, *, layers=None, steps=None):
    """Gradient norms, layer against step, in decades.

    Args:
        norms: ``(steps, layers)`` norms; zero and what is not finite stay white.
        layers: names, in depth order.
        steps: ``(steps,)`` their numbers.

    Returns:
        A figure with the first layer at the bottom.

    Raises:
        ValueError: if the shapes do not fit.
    """
    norms = np.asarray(norms, np.float64)
    num_steps, num_layers = norms.shape
    steps = np.arange(num_steps) if steps is None else np.asarray(steps)
    if len(steps) != num_steps or (layers is not None and len(layers) != num_layers):
        raise ValueError(f"norms is (steps, layers), and has shape {norms.shape}")
    with np.errstate(divide="ignore", invalid="ignore"):
        decades = np.log10(np.where(norms > 0, norms, np.nan)).T
    figure, axes = _figure()
    shown = np.ma.masked_invalid(decades)
    image = axes.pcolormesh(np.arange(num_steps), np.arange(num_layers), shown)
    places = np.unique(np.linspace(0, num_steps - 1, 6).astype(int))
    axes.set_xticks(places, [str(steps[i]) for i in places])
    if layers is not None:
        axes.set_yticks(np.arange(num_layers), layers)
    axes.set(xlabel="step", ylabel="layer")
    figure.colorbar(image, label="norm of the gradient, decades")
    return figure


def phase_diagram(activation, /, *, sigma_w=None, sigma_b=None):
    """Where gradients vanish and where they explode: the phases of wide networks.

    Args:
        activation: any elementwise function.
        sigma_w: values on one axis; from 0.5 to 3 by default.
        sigma_b: values on the other; from 0 to 1 by default.

    Returns:
        A figure of the gradient's rate per layer, natural logarithm of its norm, with
        the critical line.

    Cost:
        A tenth of a second for each point of the grid.
    """
    sigma_w = np.linspace(0.5, 3, 14) if sigma_w is None else np.asarray(sigma_w)
    sigma_b = np.linspace(0, 1, 8) if sigma_b is None else np.asarray(sigma_b)
    fields = [[mean_field(activation, w, b) for w in sigma_w] for b in sigma_b]
    rates = np.array([[np.log(f.chi) / 2 for f in row] for row in fields])
    figure, axes = _figure()
    limit = np.max(np.abs(rates[np.isfinite(rates)]))
    image = axes.pcolormesh(
        sigma_w, sigma_b, rates, cmap="PuOr_r", vmin=-limit, vmax=limit
    )
    figure.colorbar(image, label="rate of the gradient's norm, per layer")
    critical = [critical_sigma_w(activation, float(b)) for b in sigma_b]
    axes.plot(critical, sigma_b, "k-", label="critical line")
    axes.set(
        xlabel=r"$\sigma_w$", ylabel=r"$\sigma_b$", xlim=(sigma_w.min(), sigma_w.max())
    )
    axes.legend(fontsize="small", loc="upper right")
    return figure


def _figure():
    """A figure with one pair of axes, in our colours."""
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    cycle = cycler(color=_COLOURS)
    with matplotlib.rc_context({"axes.prop_cycle": cycle}):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        return figure, figure.subplots()
