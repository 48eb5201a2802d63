"""Networks in Flax NNX, deep without compiling for long, to analyse and to train."""

from gradstab.models.activations import ACTIVATIONS, activation, leaky_relu
from gradstab.models.build import OPTIONS, build, parametrized
from gradstab.models.lstm import LSTM, LSTMState
from gradstab.models.mlp import MLP
from gradstab.models.normalization import (
    NORMALIZATIONS,
    batch_norm,
    group_norm,
    layer_norm,
    normalization,
    rms_norm,
)
from gradstab.models.resnet import ResNet
from gradstab.models.rnn import RNN
from gradstab.models.stack import scan_blocks, stack
from gradstab.models.transformer import Transformer

__all__ = [
    "ACTIVATIONS",
    "LSTM",
    "MLP",
    "NORMALIZATIONS",
    "OPTIONS",
    "RNN",
    "LSTMState",
    "ResNet",
    "Transformer",
    "activation",
    "batch_norm",
    "build",
    "group_norm",
    "layer_norm",
    "leaky_relu",
    "normalization",
    "parametrized",
    "rms_norm",
    "scan_blocks",
    "stack",
]


def __dir__():
    return __all__
