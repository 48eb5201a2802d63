"""The report as a figure."""

import numpy as np


def plot(report, /):
    """Signals, singular values and what is lost, against depth.

    Args:
        report: the report.

    Returns:
        A `matplotlib.figure.Figure` with three panels; save it with `savefig`.
    """
    from matplotlib.figure import Figure

    depth = np.arange(1, len(report.layers) + 1)
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    signals, spectra, lost = figure.subplots(1, 3)
    _curve(signals, depth, report, "forward_rms", "forward rms")
    gradients = [np.median(layer.gradient_norm) for layer in report.layers]
    _log(signals, depth, gradients, "gradient norm")
    _curve(signals, depth, report, "param_gradient_norm", "gradient of parameters")
    signals.set(xlabel="layer", title=report.verdict)
    signals.legend(fontsize="small")
    _spectra(spectra, depth, report)
    for name in ("saturated_fraction", "dead_fraction", "zero_fraction"):
        values = [getattr(layer, name) for layer in report.layers]
        lost.plot(depth, values, marker=".", label=name.replace("_", " "))
    lost.set(xlabel="layer", ylim=(-0.02, 1.02))
    lost.legend(fontsize="small")
    return figure


def _curve(axes, depth, report, field, label):
    _log(axes, depth, [getattr(layer, field) for layer in report.layers], label)


def _log(axes, depth, values, label):
    """A curve on a logarithmic axis, with gaps where there is no logarithm."""
    values = np.asarray(values, float)
    axes.semilogy(depth, np.where(values > 0, values, np.nan), marker=".", label=label)


def _spectra(axes, depth, report):
    rows = [
        (x, layer.jacobian)
        for x, layer in zip(depth, report.layers, strict=True)
        if layer.jacobian is not None
    ]
    if rows:
        x = [position for position, _ in rows]
        values = [np.mean(jacobian.values, axis=0) for _, jacobian in rows]
        _log(axes, x, [v[0] for v in values], "largest")
        _log(axes, x, [np.median(v) for v in values], "median")
        _log(axes, x, [v[-1] for v in values], "smallest")
        axes.axhline(1.0, color="grey", linewidth=0.5)
        axes.legend(fontsize="small")
    axes.set(xlabel="layer", title="singular values of the layer Jacobians")
