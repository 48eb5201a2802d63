"""Where singular values are computed: beside the Jacobians, or by LAPACK on the host.

On a CPU the host's LAPACK, one thread for each matrix, is the faster way by far. On an
accelerator the Jacobians stay where they were computed, and only their singular values
come to the host; small ones are there before a program for the device has compiled.
"""

import jax

from gradstab._checked import one_of

PLACES = ("auto", "device", "host")

# Jacobians with a smaller side below this, and fewer bytes together, go to the host:
# LAPACK decomposes one of them in a fifth of a millisecond.
_SMALL_SIDE = 64
_FEW_BYTES = 2**24


def checked_place(spectra_on: str, /, name: str = "spectra_on") -> str:
    """The place, if it is one.

    >>> checked_place("host")
    'host'
    """
    return one_of(spectra_on, name, PLACES)


def on_device(spectra_on: str, num: int, shape: tuple[int, int], /) -> bool:
    """Whether some Jacobians are decomposed where they were computed.

    Args:
        spectra_on: 'device' or 'host' if that was said; 'auto' chooses by the platform
            and by the size.
        num: how many Jacobians.
        shape: of each.
    """
    if checked_place(spectra_on) != "auto":
        return spectra_on == "device"
    if jax.default_backend() == "cpu":
        return False
    small = min(shape) < _SMALL_SIDE
    return not (small and 4 * num * shape[0] * shape[1] <= _FEW_BYTES)


def has_float64() -> bool:
    """Whether the device computes in float64: a TPU has no units for it."""
    return jax.default_backend() != "tpu"
