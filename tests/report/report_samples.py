"""Reports made by hand, without a model."""

import math

import numpy as np

from gradstab.records import Growth, Layer, Recurrence
from gradstab.report import GrowthPair, Report, judge
from gradstab.spectra import dense_spectrum, fit_growth


def layer(name, *, rms=1.0, gradient=1.0, jacobian=True, note=""):
    """A layer of width two whose Jacobian has the singular values 2 and 1."""
    return Layer(
        forward_rms=rms,
        forward_mean=0.0,
        zero_fraction=0.25,
        saturated_fraction=math.nan,
        dead_fraction=0.5,
        gradient_norm=np.full(3, gradient),
        gradient_rms=gradient,
        param_norm=1.5,
        param_gradient_norm=gradient,
        jacobian=dense_spectrum(np.diag([2.0, 1.0])[None]) if jacobian else None,
        name=name,
        in_shape=(2,) if jacobian else None,
        out_shape=(2,),
        params=(f"{name}.kernel",),
        num_params=4,
        note=note,
        forward_max=rms,
        forward_median=rms,
        gradient_max=gradient,
        gradient_median=gradient,
    )


def recurrence(rms, gradients, name="cell"):
    """A recurrent layer with a spectrum at its first step only."""
    rms, gradients = np.asarray(rms, float), np.asarray(gradients, float)
    return Recurrence(
        state_rms=rms,
        gradient_norms=gradients[:, None],
        jacobians=(dense_spectrum(np.diag([2.0, 1.0])[None]),),
        forward=fit_growth(rms),
        backward=fit_growth(gradients),
        exponents=np.log([[2.0, 1.0]]),
        exponents_error=np.zeros((1, 2)),
        name=name,
        state_size=2,
        jacobian_steps=(0,),
    )


def report(layers, recurrences=(), names=()):
    """The report of these layers."""
    growth = GrowthPair(
        forward=fit_growth([layer.forward_rms for layer in layers], names),
        backward=fit_growth([layer.gradient_norm for layer in layers], names),
    )
    verdict, reasons = judge(layers, growth, recurrences)
    return Report(
        layers=tuple(layers),
        growth=growth,
        recurrences=tuple(recurrences),
        verdict=verdict,
        reasons=reasons,
        loss=0.5,
        made={"gradstab": "0.1.0", "precision": "float64", "batch": ((3, 2),)},
    )


def network(rms, gradients):
    """Layers with these signals."""
    pairs = zip(rms, gradients, strict=True)
    return [layer(f"blocks.{i}", rms=f, gradient=b) for i, (f, b) in enumerate(pairs)]


def constant(value=1.0):
    """The growth of a signal that keeps its size."""
    return Growth(0.0, 0.01, value, law="constant")
