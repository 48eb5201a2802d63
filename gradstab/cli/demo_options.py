"""The options of ``gradstab demo``."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Demo:
    """Find three faults in twenty seconds: what there is to see, before anything else.

    A network whose gradient vanishes, a custom gradient that is wrong, and a training
    that is about to diverge, each analysed, checked or watched as a program of yours
    would be, with a picture of what was found. Exit status 1 if one is not found.
    """

    folder: pathlib.Path | None = None
    """Where the pictures go; a new numbered folder under results/ by default."""
    overwrite: bool = False
    """Replace what is there of an earlier demo."""
    platform: str | None = None
    """cpu, gpu or tpu; what JAX finds by default."""
    compilation_cache: bool = True
    """Keep compiled programs on the disk for the next time."""
    quiet: bool = False
    """Print errors and warnings only."""
    verbose: bool = False
    """Print the whole traceback of an error."""
