"""Greedy layer-wise pre-training: every hidden layer as an autoencoder, bottom up."""

import functools
import operator
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from gradstab.errors import UserTypeError, UserValueError
from gradstab.training.losses import mean_squared_error
from gradstab.training.nonfinite import NonFiniteLossError
from gradstab.training.run import fit
from gradstab.training.step import graphdefs


class Pretraining(NamedTuple):
    """A model with pre-trained hidden layers, and how well each reconstructs."""

    model: nnx.Module
    losses: np.ndarray  # (hidden layers, steps), reconstruction error while training


class Autoencoder(nnx.Module):
    r"""A layer and a linear decoder that gives back the layer's input.

    Computes :math:`W' f(c \odot h) + b'`, in training mode with a mask :math:`c` of
    zeros (with probability ``corruption``) and ones, else with :math:`c = 1`.
    """

    def __init__(self, layer, in_features, out_features, corruption, *, rngs):
        self.layer = layer
        self.decoder = nnx.Linear(out_features, in_features, rngs=rngs)
        # Scaled up by flax to keep the mean, which the paper's masks do not.
        self.mask = nnx.Dropout(corruption, rngs=rngs) if corruption else None
        self.kept = 1 - corruption

    def __call__(self, h: jax.Array):
        """The reconstruction of a batch ``(batch, in_features)``."""
        if self.mask is not None and not self.mask.deterministic:
            h = self.mask(h) * self.kept
        return self.decoder(self.layer(h))


def pretrain(
    model: Any,
    x,
    /,
    *,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    batch_size: int,
    corruption: float = 0.0,
    seed: int = 0,
    progress: bool = True,
    directory: str | pathlib.Path | None = None,
    checkpoint_every: int | None = None,
    keep: int | None = 3,
    resume: bool = False,
) -> Pretraining:
    r"""Train the hidden layers one after another to reconstruct their own input.

    Layer :math:`k` with output :math:`f_k` minimises

    .. math:: \| W' f_k(c \odot h_{k-1}) + b' - h_{k-1} \|^2

    over its own parameters and a linear decoder :math:`W', b'` that is thrown away,
    with :math:`h_{k-1}` from the layers below, which stay as they are, in evaluation
    mode. `fit` then fine-tunes the whole. Layers of equal shape share one compiled
    step.

    Args:
        model: has ``input`` (a layer), ``blocks`` (a stack of layers, see
            `gradstab.models.stack`, or a list of stacks) and ``head``, as
            `gradstab.models.MLP`. It is not changed.
        x: inputs ``(examples, ...)``, flattened; no targets are needed.
        optimizer: an optax transformation, begun anew for every layer.
        num_steps: steps for every layer.
        batch_size: examples of one step.
        corruption: share of the input's entries set to zero: above 0 the autoencoders
            are denoising ones.
        seed: of the decoders, the masks and the order of the examples.
        progress: show a progress bar for every layer, if the output is a terminal.
        directory: a folder for the layers' runs, a folder ``layer-0``, ``layer-1``, ...
            each; None to write nothing.
        checkpoint_every: save so often, see `fit`; and at the end of each layer.
        keep: how many of the newest checkpoints of each layer to keep; None for all.
        resume: go on with the runs in the folder: what a layer has learnt is read, not
            learnt again, and the end is bitwise the same.

    Returns:
        The model with its hidden layers trained, and the losses.

    Raises:
        TypeError: the model has no such layers.
        ValueError: ``corruption`` is not in [0, 1).
        NonFiniteLossError: from `fit`; a note names the layer.
        FileExistsError: the folder has such runs, and ``resume`` is not set.

    References:
        Hinton, Osindero and Teh (2006), A fast learning algorithm for deep belief nets
        (with restricted Boltzmann machines); Bengio et al. (2007), Greedy layer-wise
        training of deep networks (with autoencoders); Vincent et al. (2008),
        Extracting and composing robust features with denoising autoencoders.
    """
    if not 0 <= corruption < 1:
        raise UserValueError(f"corruption is a share in [0, 1); got {corruption}.")
    model = nnx.clone(model)
    rngs = nnx.Rngs(seed)
    h = jnp.asarray(x).reshape(len(x), -1)
    losses = []

    def train(layer):
        nonlocal h
        out_features = jax.eval_shape(encoder(layer), h[:1]).shape[1]
        autoencoder = Autoencoder(
            layer, h.shape[1], out_features, corruption, rngs=rngs
        )
        try:
            run = fit(
                autoencoder,
                (h, h),
                loss=mean_squared_error,
                optimizer=optimizer,
                num_steps=num_steps,
                batch_size=batch_size,
                seed=seed,
                progress=progress,
                directory=_stage(directory, len(losses)),
                checkpoint_every=checkpoint_every,
                keep=keep,
                resume=resume,
            )
        except NonFiniteLossError as error:
            error.add_note(f"while pre-training hidden layer {len(losses)}")
            raise
        losses.append(_losses(run, num_steps))
        trained: Any = run.model
        h = encoder(trained.layer)(h)
        return trained.layer

    _map_hidden_layers(train, model)
    model.eval()
    return Pretraining(model, np.stack(losses))


def _stage(directory, layer):
    return None if directory is None else pathlib.Path(directory) / f"layer-{layer}"


def _losses(run, num_steps: int):
    """The loss of every step; NaN where the line of a resumed run was lost."""
    losses = np.full(num_steps, np.nan)
    if run.history:
        losses[run.history["step"] - 1] = run.history["loss"]
    return losses


def _map_hidden_layers(train, model: Any):
    """Replace the parameters of every hidden layer by those of ``train(layer)``."""
    names = ("input", "blocks", "head")
    missing = [name for name in names if not hasattr(model, name)]
    if missing:
        raise UserTypeError(
            f"{type(model).__name__} has no attribute {', '.join(missing)}; "
            "pre-training takes models whose hidden layers are 'input' and 'blocks' "
            "and whose last layer is 'head', such as gradstab.models.MLP."
        )
    if not callable(model.input):
        raise UserTypeError(
            f"{type(model).__name__} is no network of layers one after another: its "
            f"{type(model.input).__name__} is not a function of its input alone. "
            "Pre-training is of an mlp, such as gradstab.models.MLP."
        )
    nnx.update(model.input, nnx.state(train(model.input)))
    several = isinstance(model.blocks, nnx.List)
    for stack in model.blocks if several else [model.blocks]:
        layers = [nnx.state(train(layer)) for layer in _layers(stack)]
        nnx.update(stack, jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers))


def _layers(stack):
    graphdef, state = nnx.split(stack)
    for i in range(len(jax.tree.leaves(state)[0])):
        yield nnx.merge(graphdef, jax.tree.map(operator.itemgetter(i), state))


def encoder(layer, /):
    """The layer in evaluation mode, as a compiled function of the signals below."""
    _, graphdef = graphdefs(layer)
    return functools.partial(_encode, graphdef, nnx.to_pure_dict(nnx.state(layer)))


@functools.partial(jax.jit, static_argnums=0)
def _encode(graphdef, state: Any, h: jax.Array):
    return nnx.merge(graphdef, state, copy=True)(h)
