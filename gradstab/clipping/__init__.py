"""Gradient clipping, guards and penalties as Optax transformations that keep records.

They compose in `optax.chain`, as everything in Optax does:

>>> import optax, gradstab.clipping as clipping
>>> tx = optax.chain(
...     clipping.add_l2_penalty(1e-4, mask=clipping.weights_only),
...     clipping.recorded(clipping.clip_by_global_norm(1.0)),
...     optax.adam(1e-3),
... )

What holds for all of them:

- Norms are exact at any scale: gradients whose squared norm, or even norm, exceeds the
  largest number of their dtype are clipped to the right length, and norms of float16
  and bfloat16 gradients are computed in float32. `optax.clip_by_global_norm` turns
  such gradients into zeros.
- A gradient with a non-finite entry passes the clippers unchanged, all of it, so that a
  guard (`skip_nonfinite`) sees it. Leaves that are not floating pass unchanged always.
- Dtypes are preserved, and the state has its final structure and dtypes from `init`
  on, so it rides in `jax.lax.scan` and in checkpoints.
- Thresholds may be traced, so that Optax can schedule them:
  ``optax.inject_hyperparams(clip_by_global_norm)(max_norm=lambda step: ...)``. Sizes
  and functions are no thresholds, and are named there: ``static_args=("window",)``.
"""

from gradstab.clipping.guards import SkipState, skip_large, skip_nonfinite
from gradstab.clipping.layers import adaptive_clip, clip_by_layer_norm
from gradstab.clipping.norm_records import (
    NormsState,
    record_norms,
    update_norms,
    update_ratios,
)
from gradstab.clipping.norms import (
    clip_by_block_rms,
    clip_by_global_norm,
    clip_by_value,
)
from gradstab.clipping.penalties import add_l1_penalty, add_l2_penalty, weights_only
from gradstab.clipping.recording import RecordedState, clip_fraction, recorded
from gradstab.clipping.running import (
    AutoClipState,
    ZClipState,
    clip_by_percentile,
    clip_by_zscore,
)

__all__ = [
    "AutoClipState",
    "NormsState",
    "RecordedState",
    "SkipState",
    "ZClipState",
    "adaptive_clip",
    "add_l1_penalty",
    "add_l2_penalty",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "clip_by_layer_norm",
    "clip_by_percentile",
    "clip_by_value",
    "clip_by_zscore",
    "clip_fraction",
    "record_norms",
    "recorded",
    "skip_large",
    "skip_nonfinite",
    "update_norms",
    "update_ratios",
    "weights_only",
]


def __dir__():
    return __all__
