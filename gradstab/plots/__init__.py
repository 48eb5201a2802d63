"""Figures of reports, of theory, and of gradients over training.

Every function draws on the matplotlib axes ``ax`` if it is given, else on those of a
new figure, and returns the `matplotlib.figure.Figure`; save it with ``savefig``, or
show it in a notebook by naming it. The colour-blind can tell the colours apart; with
the style ``dark_background`` the figures are for dark pages.
"""

from gradstab.plots.decades import heat_map
from gradstab.plots.densities import spectra
from gradstab.plots.ladder import exponents
from gradstab.plots.phases import phase_diagram

__all__ = ["exponents", "heat_map", "phase_diagram", "spectra"]


def __dir__():
    return __all__
