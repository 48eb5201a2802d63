"""Data sets, generated tasks, and batches that a resumed run sees again."""

from gradstab.data.batches import (
    as_batches,
    batch_plan,
    epoch_permutation,
    steps_per_epoch,
)
from gradstab.data.catalogue import NAMES, data_folder, load
from gradstab.data.dataset import Dataset
from gradstab.data.idx import read_idx
from gradstab.data.sequences import adding_problem, copy_memory, temporal_order

__all__ = [
    "NAMES",
    "Dataset",
    "adding_problem",
    "as_batches",
    "batch_plan",
    "copy_memory",
    "data_folder",
    "epoch_permutation",
    "load",
    "read_idx",
    "steps_per_epoch",
    "temporal_order",
]


def __dir__():
    return __all__
