"""Training: a jitted loop that resumes bitwise, and stops before it breaks."""

from gradstab.training.checkpoint_files import DamagedCheckpointError
from gradstab.training.checkpoints import all_steps, latest, load_params, restore
from gradstab.training.clipped import clipping_summary
from gradstab.training.damage import DamageWarning
from gradstab.training.evaluation import evaluate
from gradstab.training.losses import (
    accuracy,
    cross_entropy,
    mean_squared_error,
    with_auxiliary,
)
from gradstab.training.nonfinite import NonFiniteLossError
from gradstab.training.optimizers import CLIPPERS, OPTIMIZERS, build
from gradstab.training.pretraining import Pretraining, pretrain
from gradstab.training.replaying import Replay, replay
from gradstab.training.results import (
    environment,
    new_results_folder,
    open_folder,
    read_config,
    read_metrics,
    write_config,
)
from gradstab.training.run import Run, fit
from gradstab.training.schedule import make_schedule
from gradstab.training.step import State, initial_state, make_steps
from gradstab.training.watching import Watch

__all__ = [
    "CLIPPERS",
    "OPTIMIZERS",
    "DamageWarning",
    "DamagedCheckpointError",
    "NonFiniteLossError",
    "Pretraining",
    "Replay",
    "Run",
    "State",
    "Watch",
    "accuracy",
    "all_steps",
    "build",
    "clipping_summary",
    "cross_entropy",
    "environment",
    "evaluate",
    "fit",
    "initial_state",
    "latest",
    "load_params",
    "make_schedule",
    "make_steps",
    "mean_squared_error",
    "new_results_folder",
    "open_folder",
    "pretrain",
    "read_config",
    "read_metrics",
    "replay",
    "restore",
    "with_auxiliary",
    "write_config",
]


def __dir__():
    return __all__
