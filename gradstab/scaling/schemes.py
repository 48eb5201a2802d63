"""Parametrisations: how initial sizes and learning rates go with the width.

Each is written in the form without multipliers in front of the weights: at m times the
base width the standard deviation of a weight is m to an exponent times that at the base
width, and so is its learning rate. Multipliers in a program can be moved into these two
without a change of training (Yang and Hu 2021, section 3; Yang et al. 2022, appendix
B), so that one form tells all of them.

Exponents of widths for each role:

==========  ===========================  =========================================
scheme      standard deviation           learning rate
==========  ===========================  =========================================
standard    as it is initialised         one for all
mup         Yang et al. (2022), table 3  the same
ntk         Jacot et al. (2018)          one for weights with 1/sqrt(width) before
mean-field  Mei et al. (2018), table 1   one (of width for SGD) for weights with
            of Yang and Hu (2021)        1/sqrt(width), and 1/width at the output
spectral    Yang, Simon and Bernstein    the same: a norm of sqrt(out/in) for the
            (2023), condition 1          weights and for their updates
==========  ===========================  =========================================

Of the depth, for residual networks; what is outside of the blocks stays:

=========  =========================  ==============================================
scheme     factor of every branch     learning rate in the blocks
=========  =========================  ==============================================
standard   1                          one for all
depth-mup  Yang et al. (2023): power  -1/2 for Adam, 0 for SGD: so that what each
           -1/2 of the depth          block's update does to the stream has power -1
completep  Dey et al. (2025), table   0 for Adam (table 1), 1 for SGD, by the same rule
           1: power -1
=========  =========================  ==============================================
"""

from typing import NamedTuple

from gradstab.errors import UserValueError
from gradstab.scaling.roles import Role

# Schemes that divide products of queries and keys by the size of a head.
WITH_PRODUCTS = ("mup", "spectral")
SCHEMES = ("standard", "mup", "ntk", "mean-field", "spectral")
OPTIMIZERS = ("sgd", "adam", "muon")


DEPTH_SCHEMES = ("standard", "depth-mup", "completep")
# The power of the depth by which every residual branch is multiplied.
BRANCH_POWERS = {"standard": 0.0, "depth-mup": -0.5, "completep": -1.0}


class Exponents(NamedTuple):
    """How the initial size and the learning rate of a parameter go with the width.

    Attributes:
        size: of the standard deviation; None if it stays as it is initialised.
        rate: of the learning rate.
    """

    size: float | None
    rate: float


class _Rates(NamedTuple):
    """Exponents of the learning rate, by what sums and what spreads."""

    input: float
    hidden: float
    output: float
    vector: float


# Schemes that say what an update of the weights must be, whatever the optimiser.
_BY_UPDATE = ("mup", "spectral")

# Standard deviations: of weights from an axis that stays, between axes that grow, to an
# axis that stays.
_SIZES = {
    "mup": (0.0, -0.5, -1.0),
    "ntk": (0.0, -0.5, -0.5),
    "mean-field": (0.0, -0.5, -1.0),
    # (1/sqrt(in)) min(1, sqrt(out/in)), equation (8) of Yang, Simon, Bernstein (2023).
    "spectral": (0.0, -0.5, -1.0),
}

_RATES = {
    ("mup", "sgd"): _Rates(1.0, 0.0, -1.0, 1.0),
    ("mup", "adam"): _Rates(0.0, -1.0, -1.0, 0.0),
    # A weight W = w / sqrt(n) moves with 1/n of the rate of w under SGD, which scales
    # the gradient too, and with 1/sqrt(n) of it under optimisers that normalise.
    ("ntk", "sgd"): _Rates(0.0, -1.0, -1.0, 0.0),
    ("ntk", "adam"): _Rates(0.0, -0.5, -0.5, 0.0),
    ("ntk", "muon"): _Rates(0.0, -0.5, -0.5, 0.0),
    # One rate of width for all under SGD (c = -1), one of 1 under the others.
    ("mean-field", "sgd"): _Rates(1.0, 0.0, -1.0, 1.0),
    ("mean-field", "adam"): _Rates(0.0, -0.5, -1.0, 0.0),
    ("mean-field", "muon"): _Rates(0.0, -0.5, -1.0, 0.0),
    # An update of spectral norm sqrt(out/in).
    ("spectral", "sgd"): _Rates(1.0, 0.0, -1.0, 1.0),
    ("spectral", "adam"): _Rates(0.0, -1.0, -1.0, 0.0),
    # That of `optax.contrib.muon` is sqrt(max(1, out/in)): right but for the output.
    ("spectral", "muon"): _Rates(0.0, 0.0, -0.5, 0.0),
    ("mup", "muon"): _Rates(0.0, 0.0, -0.5, 0.0),
}


def exponents(
    scheme: str,
    optimizer: str,
    role: Role,
    /,
    *,
    is_matrix: bool = True,
    output_first: bool = False,
) -> Exponents:
    """How a parameter of a role goes with the width.

    Args:
        scheme: one of `SCHEMES`.
        optimizer: one of `OPTIMIZERS`; 'muon' is `optax.contrib.muon` as it comes.
        role: of the parameter.
        is_matrix: whether it has two axes; what has not is given to Adam by Muon.
        output_first: whether it is a matrix (output, input), as Equinox keeps kernels;
            it matters to Muon alone.

    Raises:
        ValueError: for another scheme or optimiser.

    >>> exponents("mup", "adam", Role.HIDDEN)
    Exponents(size=-0.5, rate=-1.0)
    """
    expect_known("scheme", scheme, SCHEMES)
    expect_known("optimizer", optimizer, OPTIMIZERS)
    if scheme == "standard" or role in (Role.FIXED, Role.AMBIGUOUS):
        return Exponents(None, 0.0)
    if optimizer == "muon" and not is_matrix:
        optimizer = "adam"
    size, rate = _exponents(scheme, optimizer, role)
    turned = optimizer == "muon" and output_first
    if turned and scheme in _BY_UPDATE and role is not Role.HIDDEN:
        # Optax takes (output, input) for (input, output): its factor is 1 where
        # sqrt(width) is right, and sqrt(width) where 1 would be.
        rate += -0.5 if role is Role.OUTPUT else 0.5
    return Exponents(size, rate)


def _exponents(scheme: str, optimizer: str, role: Role) -> Exponents:
    rates, sizes = _RATES[scheme, optimizer], _SIZES[scheme]
    if role is Role.HIDDEN:
        return Exponents(sizes[1], rates.hidden)
    if role is Role.OUTPUT:
        return Exponents(sizes[2], rates.output)
    if role is Role.VECTOR:
        return Exponents(None, rates.vector)
    return Exponents(sizes[0], rates.input)


def depth_exponents(scheme: str, optimizer: str, /, *, is_end: bool) -> Exponents:
    """How a parameter in a residual block goes with the depth.

    The factor of a branch is moved into the parameters at its end, with what that does
    to their gradients and updates (as above).

    Args:
        scheme: one of `DEPTH_SCHEMES`.
        optimizer: one of `OPTIMIZERS`.
        is_end: whether the branch is a linear function of it.

    Raises:
        ValueError: for another scheme or optimiser.

    >>> depth_exponents("completep", "adam", is_end=False)
    Exponents(size=0.0, rate=0.0)
    >>> depth_exponents("completep", "adam", is_end=True)
    Exponents(size=-1.0, rate=-1.0)
    """
    expect_known("scheme", scheme, DEPTH_SCHEMES)
    expect_known("optimizer", optimizer, OPTIMIZERS)
    if scheme == "standard":
        return Exponents(0.0, 0.0)
    power = BRANCH_POWERS[scheme]
    # L updates that agree, each of a branch of that power, are to add up to 1. SGD has
    # the power once more, in the gradient.
    times = 2 if optimizer == "sgd" else 1
    rate = -1.0 - times * power
    if is_end:
        return Exponents(power, rate + times * power)
    return Exponents(0.0, rate + 0.0)


def expect_known(what: str, name: str, names: tuple[str, ...], /) -> None:
    """Raise a ValueError for a name that is not in the list."""
    if name not in names:
        raise UserValueError(f"{what} must be one of {', '.join(names)}: {name!r}")
