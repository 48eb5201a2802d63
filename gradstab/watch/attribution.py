"""Which layers drive the growth of the global norm of the gradient."""

from typing import NamedTuple

import numpy as np

from gradstab.watch.trends import LEAST, Trend, find_trend

# A layer drives the growth if at least this share of it is the layer's.
_DRIVES = 0.1
# By so many standard errors a loss is higher.
_ERRORS = 3
# As many steps make a mean, of all before or after a bend.
_PART = 8


class Contribution(NamedTuple):
    """What a layer has to do with the growth of the global norm.

    Attributes:
        layer: its name.
        share: its share of the squared global norm, the median of the last eighth of
            the steps.
        growth: its share of the growth of the squared global norm; those of all layers
            together are one. NaN where that does not grow.
        trend: of the logarithm of its norm; None if that is zero at most steps. If its
            last line goes neither up nor down beyond the noise, the one line since the
            trend of the global norm.
        radial: which share of the growth of its squared norm is along its parameters,
            from 0 to 1; NaN where it was not measured, as at level ``"light"``, or the
            layer does not grow.
        drives: whether it drives the growth: at least a tenth of it is its.
    """

    layer: str
    share: float
    growth: float
    trend: Trend | None
    radial: float
    drives: bool

    def __str__(self):
        text = f"{self.layer} carries {_percent(self.share)} of the squared norm"
        if np.isfinite(self.growth):
            text += f" and {_percent(self.growth)} of its growth"
        if self.trend is None:
            return text
        moves = self.trend.grows or self.trend.falls
        since = (
            f"since step {_number(self.trend.since)} its norm" if moves else "its norm"
        )
        return f"{text}; {since} {_in_words(self.trend)}"


class Attribution(NamedTuple):
    """Who drives the growth of the global norm; printed, a sentence each.

    Attributes:
        norm: the trend of the logarithm of the global norm; if its last line goes
            neither up nor down, the one line through all steps.
        loss_rises: whether the loss is higher since then than before; None if it was
            not measured.
        layers: one for each layer with a gradient, those first that do most.
    """

    norm: Trend
    loss_rises: bool | None
    layers: tuple[Contribution, ...]

    @property
    def drivers(self) -> tuple[Contribution, ...]:
        """The layers that drive the growth; none if the norm does not grow."""
        return tuple(layer for layer in self.layers if layer.drives)

    def __str__(self):
        if not self.norm.grows:
            return f"no layer drives it: the norm {_in_words(self.norm)}"
        since = f"since step {_number(self.norm.since)} the norm of the gradient"
        lines = [f"{since} {_in_words(self.norm)}"]
        lines += [f"{one}; {self._kind(one)}" for one in self.drivers]
        if not self.drivers:
            most = self.layers[0]
            lines.append(
                f"no layer drives it: none of {len(self.layers)} has a tenth of the "
                f"growth; {most.layer} has most, {_percent(most.growth)}"
            )
        return "\n".join(lines)

    def _kind(self, one):
        if np.isnan(one.radial):
            return "whether its growth is radial was not measured"
        if one.radial < 0.5:
            words = f"tangential ({_percent(one.radial)} along its parameters)"
            seen = ": the loss rises with it" if self.loss_rises else ""
            return f"its growth is {words}{seen}"
        seen = (
            "the loss rises with it" if self.loss_rises else "the loss does not see it"
        )
        radial = f"its growth is radial ({_percent(one.radial)})"
        return radial if self.loss_rises is None else f"{radial}: {seen}"


def attribute(names, steps, norms, cosines, losses, /) -> Attribution:
    """Part the growth of the global norm among the layers.

    The growth of the squared norm, from the steps before its trend begins to the last
    ones, is the sum of those of the layers.

    Args:
        names: of the layers.
        steps: their numbers, ``(steps,)``.
        norms: of the gradient of every layer, ``(steps, names)``.
        cosines: between gradient and parameters, likewise; NaN where not measured.
        losses: ``(steps,)``.

    Raises:
        ValueError: there are fewer than eight steps with finite gradients.
    """
    known = ~np.isnan(norms).all(axis=0)
    names = [name for name, has in zip(names, known, strict=True) if has]
    norms, cosines = norms[:, known], cosines[:, known]
    finite = np.isfinite(norms).all(axis=1) & (norms > 0).any(axis=1)
    every = steps
    steps, norms, cosines = steps[finite], norms[finite], cosines[finite]
    # In units of the largest norm, so that squares are in range.
    scale = norms.max(initial=0) or 1.0
    squares = np.square(norms / scale)
    totals = squares.sum(axis=1)
    norm = _trend(steps, totals, -np.inf)
    before, after = _parts(steps, norm.since)
    # Medians: a spike is no growth.
    change = np.median(squares[after], axis=0) - np.median(squares[before], axis=0)
    known = norm.grows and change.sum() > 0
    growth = change / change.sum() if known else np.full_like(change, np.nan)
    radial = _radial(squares, cosines, before, after)
    layers = []
    for i in np.flatnonzero(squares.any(axis=0)):
        some = squares[:, i] > 0
        trend = None
        if some.sum() >= LEAST:
            trend = _trend(steps[some], squares[some, i], norm.since)
        contribution = Contribution(
            layer=names[i],
            share=float(np.median(squares[after, i] / totals[after])),
            growth=float(growth[i]),
            trend=trend,
            radial=float(radial[i]) if known and change[i] > 0 else np.nan,
            drives=bool(known and growth[i] >= _DRIVES),
        )
        layers.append(contribution)
    layers.sort(key=lambda one: -(one.growth if known else one.share))
    return Attribution(norm, _rises(losses, every, norm.since), tuple(layers))


def _parts(steps, since):
    """The steps before a trend begins, and the last ones, as masks.

    Of a trend without a bend the first ones stand for those before.
    """
    num = len(steps)
    part = max(num // _PART, 2)
    begin = max(int(np.searchsorted(steps, since)), part)
    places = np.arange(num)
    before = (places >= begin - part) & (places < begin)
    return before, places >= num - part


def _radial(squares, cosines, before, after):
    """The share of a growth that is along the parameters, of every layer."""
    known = np.isfinite(cosines)
    radial = np.where(known, np.square(cosines) * squares, np.nan)
    whole = np.where(known, squares, np.nan)
    result = np.full(squares.shape[1], np.nan)
    both = known[before].any(axis=0) & known[after].any(axis=0)
    for i in np.flatnonzero(both):
        along, all_of_it = (
            np.nanmedian(a[after, i]) - np.nanmedian(a[before, i])
            for a in (radial, whole)
        )
        if all_of_it > 0:
            result[i] = np.clip(along / all_of_it, 0, 1)
    return result


def _log_norm(squares):
    with np.errstate(divide="ignore"):
        return np.log(squares) / 2


def _trend(steps, squares, since) -> Trend:
    """The last line of a norm, or if that does not move the one since a step."""
    logs = _log_norm(squares)
    last, later = find_trend(steps, logs), steps >= since
    if last.grows or last.falls or later.sum() < LEAST:
        return last
    return find_trend(steps[later], logs[later], bends=False)


def _rises(losses, steps, since):
    """Whether the loss is higher while the norm grows than before; None if unknown.

    Looked at are as many steps before as there are since, and by their ranks: a loss
    that runs away, and that of a network which died of it, is higher than any before.
    """
    known = ~np.isnan(losses)
    if not known.any():
        return None
    bend = int(np.searchsorted(steps, since))
    begin = max(2 * bend - len(steps), 0)
    if bend - begin < LEAST // 2 or len(steps) - begin < LEAST:
        return find_trend(steps[known], losses[known]).grows
    # A loss that is no number any more is as high as an infinite one.
    from scipy import stats  # it loads for long, and not everybody asks

    ranks = stats.rankdata(np.where(known, losses, np.inf)[begin:])
    parts = ranks[: bend - begin], ranks[bend - begin :]
    errors = [np.std(part, ddof=1) / np.sqrt(_independent(part)) for part in parts]
    return bool(np.mean(parts[1]) - np.mean(parts[0]) > _ERRORS * np.hypot(*errors))


def _independent(series):
    """So many independent numbers say of a mean what these do, of an AR(1) process."""
    apart = series - series.mean()
    power = apart @ apart
    alike = np.clip(apart[1:] @ apart[:-1] / power if power else 0, 0, 1)
    return max(len(series) * (1 - alike) / (1 + alike), 2)


def _in_words(trend):
    """What a norm does, by the trend of its logarithm."""
    low, rate, high = (100 * np.expm1(x) for x in (trend.low, trend.rate, trend.high))
    verb = "grows" if trend.grows else "falls" if trend.falls else "does not grow"
    numbers = f"{rate:+.2g} % a step, 95 %: {low:+.2g} to {high:+.2g}"
    if trend.grows or trend.falls:
        return f"{verb} by {numbers.replace(', ', ' (', 1)})"
    return f"{verb} beyond its noise ({numbers})"


def _percent(share):
    return f"{100 * share:.0f} %"


def _number(step):
    return f"{step:,}".replace(",", " ")
