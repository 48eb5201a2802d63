"""Gradient stability of JAX programs: are gradients right, do they reach every layer?

>>> import gradstab as gs
>>> import jax.numpy as jnp
>>> report = gs.analyze(lambda w, x: jnp.tanh(x @ w), jnp.eye(3), jnp.ones((2, 3)))
>>> report.layers[0].jacobian.values.shape
(2, 3)
"""

import importlib
from importlib import metadata
from typing import TYPE_CHECKING

from gradstab.errors import UserAttributeError

if TYPE_CHECKING:
    from gradstab import clipping as clipping
    from gradstab import data as data
    from gradstab import errors as errors
    from gradstab import initializers as initializers
    from gradstab import models as models
    from gradstab import plots as plots
    from gradstab import scaling as scaling
    from gradstab import testing as testing
    from gradstab import theory as theory
    from gradstab import training as training
    from gradstab import watch as watch
    from gradstab._compilation_cache import (
        use_compilation_cache as use_compilation_cache,
    )
    from gradstab.analysis import analyze as analyze
    from gradstab.analysis import initializations as initializations
    from gradstab.calibration import lsuv as lsuv
    from gradstab.gradcheck import Audit as Audit
    from gradstab.gradcheck import GradCheck as GradCheck
    from gradstab.gradcheck import Verdict as Verdict
    from gradstab.gradcheck import audit as audit
    from gradstab.gradcheck import check as check
    from gradstab.report import Report as Report
    from gradstab.report import load as load
    from gradstab.scaling import Transfer as Transfer
    from gradstab.scaling import parametrize as parametrize
    from gradstab.scaling import transfer as transfer
    from gradstab.theory import MeanField as MeanField
    from gradstab.theory import mean_field as mean_field
    from gradstab.watch import History as History
    from gradstab.watch import Statistics as Statistics
    from gradstab.watch import compare_gradients as compare_gradients
    from gradstab.watch import value_and_grad as value_and_grad

# Loaded when first used: `gradstab --help` need not wait for JAX.
_ROOMS = (
    "clipping",
    "data",
    "errors",
    "initializers",
    "models",
    "plots",
    "scaling",
    "testing",
    "theory",
    "training",
    "watch",
)
_HOMES = {
    "analyze": "gradstab.analysis",
    "initializations": "gradstab.analysis",
    "lsuv": "gradstab.calibration",
    "Audit": "gradstab.gradcheck",
    "GradCheck": "gradstab.gradcheck",
    "Verdict": "gradstab.gradcheck",
    "audit": "gradstab.gradcheck",
    "check": "gradstab.gradcheck",
    "Report": "gradstab.report",
    "load": "gradstab.report",
    "Transfer": "gradstab.scaling",
    "parametrize": "gradstab.scaling",
    "transfer": "gradstab.scaling",
    "MeanField": "gradstab.theory",
    "mean_field": "gradstab.theory",
    "History": "gradstab.watch",
    "Statistics": "gradstab.watch",
    "compare_gradients": "gradstab.watch",
    "value_and_grad": "gradstab.watch",
    "use_compilation_cache": "gradstab._compilation_cache",
}


def __getattr__(name):
    if name == "__version__":
        return metadata.version("gradstab")
    if name in _ROOMS:
        return importlib.import_module(f"gradstab.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise UserAttributeError(
        f"gradstab has no {name!r}; it has: {', '.join(__dir__())}"
    )


def __dir__():
    return sorted(["__version__", *_ROOMS, *_HOMES])
