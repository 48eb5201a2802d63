"""Gradients with a view: statistics of every layer, of every step, from any loop."""

from gradstab.watch.attribution import Attribution, Contribution
from gradstab.watch.comparing import compare_gradients
from gradstab.watch.comparison import GradientComparison, LayerComparison
from gradstab.watch.differentiating import value_and_grad
from gradstab.watch.history import History
from gradstab.watch.history_metrics import METRICS, Metric, show_metrics
from gradstab.watch.locating import NonFinite
from gradstab.watch.origin import Origin, find_origin
from gradstab.watch.part_norms import PartNorms, part_norms
from gradstab.watch.sameness import Sameness
from gradstab.watch.scalars import (
    GradientNoise,
    NoiseScale,
    clip_fraction,
    gradient_noise,
    noise_scale,
    z_score,
)
from gradstab.watch.statistics import Statistics
from gradstab.watch.trends import Trend
from gradstab.watch.writers import TensorBoard, WeightsAndBiases

__all__ = [
    "METRICS",
    "Attribution",
    "Contribution",
    "GradientComparison",
    "GradientNoise",
    "History",
    "LayerComparison",
    "Metric",
    "NoiseScale",
    "NonFinite",
    "Origin",
    "PartNorms",
    "Sameness",
    "Statistics",
    "TensorBoard",
    "Trend",
    "WeightsAndBiases",
    "clip_fraction",
    "compare_gradients",
    "find_origin",
    "gradient_noise",
    "noise_scale",
    "part_norms",
    "show_metrics",
    "value_and_grad",
    "z_score",
]


def __dir__():
    return __all__
