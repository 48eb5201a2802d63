"""Training: a jitted loop that resumes bitwise, and stops before it breaks."""

from gradstab.training.checkpoints import all_steps as all_steps
from gradstab.training.checkpoints import latest as latest
from gradstab.training.checkpoints import load_params as load_params
from gradstab.training.checkpoints import restore as restore
from gradstab.training.evaluation import evaluate as evaluate
from gradstab.training.losses import accuracy as accuracy
from gradstab.training.losses import cross_entropy as cross_entropy
from gradstab.training.losses import mean_squared_error as mean_squared_error
from gradstab.training.losses import with_auxiliary as with_auxiliary
from gradstab.training.nonfinite import NonFiniteLossError as NonFiniteLossError
from gradstab.training.optimizers import CLIPPERS as CLIPPERS
from gradstab.training.optimizers import OPTIMIZERS as OPTIMIZERS
from gradstab.training.optimizers import build as build
from gradstab.training.pretraining import Pretraining as Pretraining
from gradstab.training.pretraining import pretrain as pretrain
from gradstab.training.results import new_results_folder as new_results_folder
from gradstab.training.results import read_config as read_config
from gradstab.training.results import read_metrics as read_metrics
from gradstab.training.run import Run as Run
from gradstab.training.run import fit as fit
from gradstab.training.step import State as State
from gradstab.training.step import initial_state as initial_state
from gradstab.training.step import make_steps as make_steps
