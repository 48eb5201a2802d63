"""The options of ``gradstab transfer``."""

import dataclasses
import pathlib

import tyro


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Say whether what is tuned at one width, depth or batch size holds at others.

    A coordinate check: the model is trained for a few steps at every size, and the
    growth of activations, updates and gradients with the size is fitted, layer by
    layer, with its error and a verdict. With --learning-rates the best learning rate of
    every width is looked for instead. In Python: gradstab.transfer, of any model.
    """

    target: tyro.conf.Positional[str | None] = None
    """module:function; function(width, key) returns (apply, params, inputs, loss) or
    (model, inputs, loss), with loss(output): that is checked instead of a model of
    gradstab's own on the digits by default."""
    model: str = "mlp"
    """mlp, resnet, lstm, rnn or transformer."""
    parametrization: str = "standard"
    """standard, mup, ntk, mean-field or spectral; over depth standard, depth-mup or
    completep, from the smallest depth."""
    optimizer: str = "adam"
    """sgd, adam or muon."""
    learning_rate: float | None = None
    """At the base width; small by default, 1e-3 of sgd, 1e-5 of adam, 1e-4 of muon, as
    theory is of small ones."""
    learning_rates: tuple[str, ...] | None = None
    """Look for the best of these at every width, such as 0.001,0.01,0.1 or 0.001 0.01
    0.1; a coordinate check by default."""
    vary: str = "width"
    """width, depth or batch."""
    widths: tuple[str, ...] | None = None
    """The sizes, such as 64,128,256 or 64 128 256: depths or batch sizes if these vary;
    by default widths 64, 128, 256, depths 4, 8, 16, batches 32, 64, 128."""
    base_width: int | None = None
    """At which a parametrisation changes nothing; the smallest width by default."""
    width: int = 64
    """Of gradstab's own model, where the width does not vary."""
    depth: int | None = None
    """Of gradstab's own model, where the depth does not vary; 3 of an mlp, 1 of
    recurrent models, else 2 by default."""
    activation: str | None = None
    """Of gradstab's own model; tanh of an mlp, else as usual of its kind by default."""
    batch_size: int = 64
    """Examples that are trained on, of the digits."""
    steps: int | None = None
    """Of training; 4, with --learning-rates 50 by default."""
    seeds: int = 3
    """Initialisations at each size."""
    seed: int = 0
    """Of all random numbers."""
    folder: pathlib.Path | None = None
    """Keep every finished run in this folder, and go on from there; not kept by
    default."""
    json: pathlib.Path | None = None
    """Write what was measured to this file; - is standard output; not written by
    default."""
    plot: pathlib.Path | None = None
    """Draw it to this file (.png, .svg, .pdf); not drawn by default."""
    overwrite: bool = False
    """Replace these files."""
    fail_on: tuple[str, ...] | None = None
    """Verdicts of the whole for which the exit status is 1: grows, shrinks, flat,
    unknown; none by default."""
    platform: str | None = None
    """cpu, gpu or tpu; what JAX finds by default."""
    progress: bool = True
    """Show a progress bar on a terminal; elsewhere a line every half minute."""
    compilation_cache: bool = True
    """Keep compiled programs on the disk for the next time."""
    quiet: bool = False
    """Print errors and warnings only."""
    verbose: bool = False
    """Print the whole traceback of an error."""
