"""Gradient stability of JAX programs: are gradients right, do they reach every layer?

>>> import gradstab as gs
>>> import jax.numpy as jnp
>>> report = gs.analyze(lambda w, x: jnp.tanh(x @ w), jnp.eye(3), jnp.ones((2, 3)))
>>> report.layers[0].jacobian.values.shape
(2, 3)
"""

from gradstab import clipping as clipping
from gradstab import initializers as initializers
from gradstab import training as training
from gradstab.analysis import analyze as analyze
from gradstab.report import Report as Report
from gradstab.report import load as load
