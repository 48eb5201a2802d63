"""Data sets, generated tasks, and batches that a resumed run sees again."""

from gradstab.data.batches import as_batches as as_batches
from gradstab.data.batches import batch_plan as batch_plan
from gradstab.data.batches import epoch_permutation as epoch_permutation
from gradstab.data.batches import steps_per_epoch as steps_per_epoch
from gradstab.data.catalogue import NAMES as NAMES
from gradstab.data.catalogue import data_folder as data_folder
from gradstab.data.catalogue import load as load
from gradstab.data.dataset import Dataset as Dataset
from gradstab.data.idx import read_idx as read_idx
from gradstab.data.sequences import adding_problem as adding_problem
from gradstab.data.sequences import copy_memory as copy_memory
from gradstab.data.sequences import temporal_order as temporal_order
