"""A layer as it ran: what it computes, and the arrays that it met."""

import dataclasses
from typing import Any

import jax

from gradstab.network.blocks import Block, Context
from gradstab.network.examples import ExampleBlock
from gradstab.network.places import Place
from gradstab.network.recurrence import RecurrentScan
from gradstab.network.replay import Network, Replay, layer_slice
from gradstab.records import Signals


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkRun:
    """A network as it ran once, forward and backward.

    Attributes:
        network: its layers.
        arrays: the parameters, the state and the inputs that it ran with.
        signals: one number per layer.
        replay: output, activations and contexts, by block.
        gradients: per block d loss / d (data that leave), stacked as in the replay.
        param_gradients: like the parameters; None without a loss, or if not whole.
        loss: scalar.
        examples: for each layer the function of one example, where there is one that
            agrees with the layer; empty if nobody looked.
        coupled: for each layer whether it mixes examples; empty if nobody looked.
    """

    network: Network
    arrays: tuple[Any, Any, tuple]
    signals: Signals
    replay: Replay
    gradients: list[jax.Array]
    param_gradients: Any
    loss: jax.Array
    examples: tuple[ExampleBlock | None, ...] = ()
    coupled: tuple[bool | None, ...] = ()

    @property
    def layers(self) -> tuple["LayerRun", ...]:
        """The layers as they ran, in depth order."""
        nobody_looked = (None,) * len(self.network.layers)
        return tuple(
            LayerRun(self, *columns)
            for columns in zip(
                self.network.layers,
                self.examples or nobody_looked,
                self.coupled or nobody_looked,
                strict=True,
            )
        )


@dataclasses.dataclass(frozen=True, eq=False)
class LayerRun:
    """A layer as it ran, on the whole batch.

    Its arrays are slices of those of the run where layers share a function, and are cut
    out whenever they are asked for: nothing is held twice for longer than it is used.

    Attributes:
        run: of the network.
        place: where the layer sits.
        example: the function of one of its examples; None if there is none that agrees
            with the layer, or nobody looked.
        coupled: whether it mixes examples; None if nobody looked.
    """

    run: NetworkRun = dataclasses.field(repr=False)
    place: Place
    example: ExampleBlock | None = None
    coupled: bool | None = None

    @property
    def name(self) -> str:
        """Dotted path of the parameters it multiplies the data with."""
        return self.place.name

    @property
    def function(self) -> Block:
        """What it computes: ``function(context, *data)`` is the output."""
        return self.run.network.blocks[self.place.block]

    @property
    def recurrences(self) -> tuple[RecurrentScan, ...]:
        """The scans over time in it."""
        return self.run.network.recurrences[self.place.block]

    @property
    def num_examples(self) -> int:
        """Length of the example axis."""
        return self.run.network.num_examples

    @property
    def leads_with_examples(self) -> bool:
        """Whether examples lie on the leading axis of all of its data."""
        shapes = (*self.place.in_shapes, self.place.out_shape)
        return all(shape[:1] == (self.num_examples,) for shape in shapes)

    @property
    def context(self) -> Context:
        """What it needs beside the data: parameters, keys, masks."""
        return layer_slice(self.run.replay.contexts, self.place)

    @property
    def data(self) -> tuple[jax.Array, ...]:
        """The data that enter."""
        return layer_slice(self.run.replay.entering, self.place)

    @property
    def output(self) -> jax.Array:
        """The data that leave; None if the run is not whole."""
        return layer_slice(self.run.replay.activations, self.place)

    @property
    def gradient(self) -> jax.Array:
        """The gradient d loss / d (data that leave)."""
        return layer_slice(self.run.gradients, self.place)

    def of_batch(self) -> "LayerRun":
        """The layer as a function of the whole batch, whether it mixes examples or not.

        In a product with layers that do, its Jacobian is the joint one too.
        """
        return dataclasses.replace(self, example=None, coupled=True)
