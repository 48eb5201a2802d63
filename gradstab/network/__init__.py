"""Any model as a program of layers, and the signals that flow through them."""

from gradstab.network.activations import Activation, find_activations
from gradstab.network.blocks import Block, Context
from gradstab.network.examples import ExampleBlock, agree, example_blocks
from gradstab.network.finding import find_layers
from gradstab.network.places import Place
from gradstab.network.recurrence import (
    RecurrentScan,
    Trajectory,
    find_recurrent_scans,
    follow_state,
)
from gradstab.network.replay import Network, Replay, layer_slice
from gradstab.network.runs import LayerRun, NetworkRun
from gradstab.network.signals import locate_nonfinite, propagate
from gradstab.network.stencils import Stencil, find_stencil

__all__ = [
    "Activation",
    "Block",
    "Context",
    "ExampleBlock",
    "LayerRun",
    "Network",
    "NetworkRun",
    "Place",
    "RecurrentScan",
    "Replay",
    "Stencil",
    "Trajectory",
    "agree",
    "example_blocks",
    "find_activations",
    "find_layers",
    "find_recurrent_scans",
    "find_stencil",
    "follow_state",
    "layer_slice",
    "locate_nonfinite",
    "propagate",
]
