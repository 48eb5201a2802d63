"""What the records of a clipper say of its threshold."""

import numpy as np

from gradstab.errors import UserKeyError

# Almost always: the threshold, and not the gradient, says how long a step is.
_ALWAYS = 0.95


def clipping_summary(history: dict[str, np.ndarray], /) -> str:
    """How often a recorded clipper clipped, how far it turned, and what would do.

    A clip that is always on makes every gradient as long as the threshold; one that is
    never on does nothing. Of either, the quantiles of the norms before it suggest a
    threshold for clipping by the global norm.

    Args:
        history: of a `Run` whose optimiser contains one `gradstab.clipping.recorded`.

    Returns:
        Some sentences.

    Raises:
        KeyError: no clipper was recorded.

    Examples:
        >>> norms = np.array([1.0, 2.0, 3.0])
        >>> history = {"pre_norm": norms, "clipped": norms > 5}
        >>> clipping_summary(history)
        'none of 3 steps was clipped: the threshold does nothing. Norms before clipping
        have the median 2 and the 90 % quantile 2.8: a threshold of 2.8 clips one step
        in ten'
    """
    if "clipped" not in history:
        raise UserKeyError(
            "the optimiser of this run records no clipping: wrap the clipper, "
            "gradstab.clipping.recorded(clip_by_global_norm(1.0))"
        )
    clipped = np.asarray(history["clipped"], np.float64)
    known = np.isfinite(clipped)
    clipped, number = clipped[known] > 0, int(known.sum())
    norms = np.asarray(history["pre_norm"])[known]
    if not number:
        return "no step was taken"
    share = clipped.mean()
    if not clipped.any():
        found = f"none of {number} steps was clipped: the threshold does nothing"
    elif share >= _ALWAYS:
        found = (
            f"{share:.1%} of {number} steps were clipped: the threshold, and not the "
            "gradient, says how long a step is"
        )
    else:
        turned = _turned(history, known, clipped)
        return f"{share:.1%} of {number} steps were clipped{turned}"
    turned = _turned(history, known, clipped)
    return f"{found}{turned}. {quantiles(norms)}"


def quantiles(norms, /) -> str:
    """Which threshold would clip one step in ten, of the norms before clipping.

    >>> quantiles([0.0, float("inf")])
    'Norms before clipping have the median 0 and the 90 % quantile 0: ...'
    """
    finite = np.asarray(norms, np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return "No norm before clipping is finite"
    median, most = np.quantile(finite, [0.5, 0.9])
    return (
        f"Norms before clipping have the median {median:.3g} and the 90 % quantile "
        f"{most:.3g}: a threshold of {most:.3g} clips one step in ten"
    )


def _turned(history, known, clipped):
    """By which angle clipped gradients were turned, in words."""
    if "clip_cosine" not in history or not clipped.any():
        return ""
    cosines = np.asarray(history["clip_cosine"])[known][clipped]
    cosines = cosines[np.isfinite(cosines)]
    if not len(cosines):
        return ""
    degrees = np.degrees(np.arccos(np.clip(np.median(cosines), -1, 1)))
    if degrees < 0.1:  # what rounding makes of one, in float32
        return ", in their own direction"
    return f", and turned by {degrees:.2g} degrees (median)"
