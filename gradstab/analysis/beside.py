"""Theory beside the mean over many initialisations."""

import dataclasses

import numpy as np

from gradstab.records import Prediction
from gradstab.report import Ensemble, OverSeeds


def beside_ensemble(prediction: Prediction, ensemble: Ensemble, /) -> Prediction:
    r"""The same theory, compared with all initialisations of an ensemble.

    Theory predicts means of squares over the weights. Given the gradient at its output,
    the mean over a layer's weights of :math:`\|g_{l-1}\|^2 / \|g_l\|^2` is its
    :math:`\chi`; so what is compared are root mean squares over the initialisations, of
    this ratio and of the data that leave the layer, with errors over them. An
    initialisation counts with its geometric mean over the examples, which is O(1 /
    width) below their root mean square.

    Args:
        prediction: from `predict`, of one initialisation; that of another differs by
            the sampling of its weights only.
        ensemble: signals of all.

    Returns:
        The prediction with the measurement of the ensemble. The gradient that leaves
        the network at its input is not measured in an ensemble: NaN.
    """
    norms = ensemble.gradient_norm.values
    steps = OverSeeds(norms[:, :-1] / norms[:, 1:], logarithmic=True)
    measured, error = (
        np.concatenate([[np.nan], column])
        for column in (steps.log_root_mean_square, steps.error)
    )
    rms = ensemble.forward_rms
    above = rms.log_root_mean_square - np.log(prediction.forward_rms)
    return dataclasses.replace(
        prediction,
        forward_error=rms.typical * rms.error,
        forward_z=above / rms.error,
        measured_gradient_factor=np.exp(measured),
        gradient_error=error,
        gradient_z=(measured - np.log(prediction.gradient_factor)) / error,
    )
