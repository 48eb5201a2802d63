"""Every data set by its name."""

import os
from pathlib import Path

from gradstab import _checked
from gradstab.data.dataset import Dataset
from gradstab.data.digits import digits
from gradstab.data.mnist import SOURCES, mnist_family
from gradstab.data.sequences import GENERATED, generated
from gradstab.errors import UserKeyError

NAMES = ("digits", *SOURCES, *GENERATED)


def load(
    name: str = "digits",
    /,
    *,
    data_dir: Path | str | None = None,
    may_download: bool = True,
    time_steps: int | None = None,
    num_train: int | None = None,
    seed: int = 0,
) -> Dataset:
    """A data set by its name.

    ================== =============================================================
    'digits'           1,797 images of 8 x 8 in ten classes; embedded, no network
    'mnist'            70,000 images of 28 x 28 in ten classes; files or download
    'fashion-mnist'    70,000 images of 28 x 28 in ten classes; files or download
    'adding'           `adding_problem`, generated
    'copy-memory'      `copy_memory`, generated
    'temporal-order'   `temporal_order`, generated
    ================== =============================================================

    Images come as vectors of pixels within [0, 1]; `Dataset.images`, `Dataset.rows` and
    `Dataset.permuted` give their other forms.

    Args:
        name: one of `NAMES`.
        data_dir: the folder of the MNIST family's files; without it `data_folder()`.
        may_download: whether missing files are fetched from the network.
        time_steps: images are cut into a sequence of as many pieces
            (`Dataset.sequence`); for the generated tasks their length or delay, 100 if
            not given.
        num_train: only the first so many training examples; of a generated task as many
            are drawn, 10,000 if not given, with 1,000 each to validate and to test.
        seed: of the generated tasks; the other data sets and their splits are fixed.

    Raises:
        KeyError: the name is not known.
        FileNotFoundError, ValueError: see `mnist_family`, `Dataset.sequence` and
            `Dataset.take`.

    >>> load("adding", time_steps=20, num_train=64).x_train.shape
    (64, 20, 2)
    """
    _checked.seed(seed)
    for option, value in (("num_train", num_train), ("time_steps", time_steps)):
        if value is not None:
            _checked.whole_number(value, option, least=1)
    if name in GENERATED:
        return generated(
            name,
            num_train=10_000 if num_train is None else num_train,
            num_held_out=1000,
            time_steps=100 if time_steps is None else time_steps,
            seed=seed,
        )
    if name == "digits":
        data = digits()
    elif name in SOURCES:
        data = mnist_family(name, data_folder(data_dir), may_download=may_download)
    else:
        raise UserKeyError(f"no data set named {name!r}; known are: {', '.join(NAMES)}")
    data = data if num_train is None else data.take(num_train)
    return data if time_steps is None else data.sequence(time_steps)


def data_folder(data_dir: Path | str | None = None, /) -> Path:
    """Where data files are: the folder given, or that of the environment, or a cache.

    ``data_dir``, else ``$GRADSTAB_DATA_DIR``, else ``~/.cache/gradstab``.

    >>> data_folder("elsewhere").name
    'elsewhere'
    """
    folder = data_dir or os.environ.get("GRADSTAB_DATA_DIR") or "~/.cache/gradstab"
    return Path(folder).expanduser()
