"""Networks in Flax NNX, deep without compiling for long, to analyse and to train."""

from gradstab.models.activations import ACTIVATIONS as ACTIVATIONS
from gradstab.models.activations import activation as activation
from gradstab.models.activations import leaky_relu as leaky_relu
from gradstab.models.build import OPTIONS as OPTIONS
from gradstab.models.build import build as build
from gradstab.models.lstm import LSTM as LSTM
from gradstab.models.lstm import LSTMState as LSTMState
from gradstab.models.mlp import MLP as MLP
from gradstab.models.normalization import NORMALIZATIONS as NORMALIZATIONS
from gradstab.models.normalization import batch_norm as batch_norm
from gradstab.models.normalization import group_norm as group_norm
from gradstab.models.normalization import layer_norm as layer_norm
from gradstab.models.normalization import normalization as normalization
from gradstab.models.normalization import rms_norm as rms_norm
from gradstab.models.resnet import ResNet as ResNet
from gradstab.models.rnn import RNN as RNN
from gradstab.models.stack import scan_blocks as scan_blocks
from gradstab.models.stack import stack as stack
from gradstab.models.transformer import Transformer as Transformer
