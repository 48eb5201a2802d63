"""What the figures of experiments share."""

from gradstab import _drawing


def legend(axes, /) -> None:
    """A legend that covers no curve; of a curve that is not there it says why.

    Args:
        axes: matplotlib axes on which all is drawn.
    """
    _drawing.add_legend(axes)
