"""What must be true of every figure, measured in pixels as it is drawn."""

import itertools

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg


def drawn(figure):
    """The figure's renderer, after everything got its place."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def overlapping_names(figure):
    """Pairs of names on one axis that are written over each other."""
    renderer, found = drawn(figure), []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [x for x in axis.get_ticklabels() if x.get_text()]
            boxes = [(x.get_text(), x.get_window_extent(renderer)) for x in labels]
            inside = [b for b in boxes if axes.bbox.expanded(1.5, 1.5).overlaps(b[1])]
            for (a, box), (b, other) in itertools.pairwise(inside):
                if box.overlaps(other):
                    found.append((a, b))
    return found


def covered_curves(figure):
    """Curves of which a point, or the line between two, is below a legend."""
    renderer, found = drawn(figure), []
    for axes in figure.axes:
        if axes.get_legend() is None:
            continue
        box = axes.get_legend().get_window_extent(renderer)
        for line in axes.lines:
            if not line.get_transform().contains_branch_seperately(axes.transData)[1]:
                continue  # from bottom to top of any axes
            path = line.get_path()
            points = line.get_transform().transform(path.vertices)
            points = points[np.isfinite(points).all(axis=1)]
            for start, end in itertools.pairwise(points):
                between = start + np.linspace(0, 1, 20)[:, None] * (end - start)
                if any(box.contains(*point) for point in between):
                    found.append(line.get_label())
                    break
    return found


def left_axes(figure):
    """Curves with a point above or below their axes."""
    drawn(figure)
    found = []
    for axes in figure.axes:
        low, high = axes.get_ylim()
        for line in axes.lines:
            y = np.asarray(line.get_ydata(), float)
            y = y[np.isfinite(y) & ((y != 0) | (axes.get_yscale() != "log"))]
            if len(y) and not (low <= y.min() and y.max() <= high):
                found.append(line.get_label())
    return found


def without_title(figure):
    """Panels that say not what they are; a colour bar has its label instead."""
    return [
        axes
        for axes in figure.axes
        if not (axes.get_title() or axes.get_label() == "<colorbar>")
        or not (axes.get_xlabel() or axes.get_label() == "<colorbar>")
    ]


def undrawn_entries(figure):
    """Names in a legend of curves that have no point."""
    found = []
    for axes in figure.axes:
        curves = {line.get_label(): line for line in axes.lines}
        for text in axes.get_legend().get_texts() if axes.get_legend() else ():
            line = curves.get(text.get_text())
            if (
                line is not None
                and not np.isfinite(np.asarray(line.get_ydata(), float)).any()
            ):
                found.append(text.get_text())
    return found


def unexplained_curves(figure):
    """Panels with curves of several colours and no legend in them or beside them."""
    legends = [axes.get_legend() for axes in figure.axes]
    found = []
    for axes, legend in zip(figure.axes, legends, strict=True):
        lines = [x for x in axes.lines if np.size(x.get_ydata())]
        colours = {str(x.get_color()) for x in lines}
        words = f"{axes.get_title()} {axes.get_ylabel()}"
        told = legend is not None or any(legends) or "for each" in words
        if len(colours) > 1 and not told:
            found.append(axes)
    return found


def assert_readable(figure):
    """All of it."""
    assert not overlapping_names(figure)
    assert not covered_curves(figure)
    assert not left_axes(figure)
    assert not without_title(figure)
    assert not undrawn_entries(figure)
