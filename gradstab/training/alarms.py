"""What a watched run says while it goes on."""

import collections
from typing import Any

import numpy as np

from gradstab.training.clipped import quantiles
from gradstab.watch.indicators import ALARMS, NORM_RISE, Alarm, Form, Scorer

_WINDOW = 100
# A thing is said again after so many watched steps.
_QUIET = 100


class Alarms:
    """Looks at the statistics of every watched step, and says what is not healthy.

    What has a threshold (`gradstab.watch.indicators.ALARMS`: how much the global norm
    and the gain of a layer change, and how long an update is) says in how many healthy
    runs it rang, as `python -m experiments.early_warnings` measured. The first twenty
    watched steps, in which norms fall quickly, are not judged by those before them.
    """

    def __init__(self):
        self._scorers = [(alarm, Scorer(alarm.indicator)) for alarm in ALARMS]
        self._clipped = collections.deque(maxlen=_WINDOW)
        self._said: dict[Any, int] = {}
        self._number = 0

    def look(self, step: int, stats, records, /) -> list[str]:
        """The sentences of a step, mostly none.

        Args:
            step: its number, from 1.
            stats: its `Statistics`, on the host.
            records: what else was measured: ``clipped`` and ``pre_norm``, if a clipper
                is recorded.
        """
        self._number += 1
        found = [
            *self._nonfinite(stats),
            *self._warnings(stats),
            *self._cut_off(stats),
            *self._always_clipped(records),
        ]
        new = [(key, text) for key, text in found if self._is_new(key)]
        return [f"step {step}: {text}" for _, text in new]

    def _is_new(self, key):
        last = self._said.get(key)
        if last is not None and self._number - last < _QUIET:
            return False
        self._said[key] = self._number
        return True

    def _nonfinite(self, stats):
        place = stats.nonfinite()
        if place is not None:
            yield ("nonfinite", place.layer, place.part), str(place)

    def _warnings(self, stats):
        def get(name):
            return np.asarray(getattr(stats, name), np.float64)[None]

        for alarm, scorer in self._scorers:
            (values,) = alarm.indicator.values(get)
            scores = scorer.look(values)
            if np.isnan(scores).all():
                continue
            row = int(np.nanargmax(scores))
            if scores[row] > alarm.threshold:
                name, text = _in_words(alarm, stats, row, values[row], scores[row])
                yield (alarm.indicator.name, name), f"{text} ({alarm})"

    def _cut_off(self, stats):
        entries = np.asarray(stats.backward_entries)[:-1]
        forward = np.asarray(stats.forward_entries)[:-1]
        for name, back, there in zip(stats.names, entries, forward, strict=False):
            if there > 0 and back == 0 and ("cut off", name) not in self._said:
                yield ("cut off", name), f"no gradient comes to the output of {name}"

    def _always_clipped(self, records):
        if "clipped" not in records:
            return
        self._clipped.append((bool(records["clipped"]), float(records["pre_norm"])))
        clipped, norms = map(np.array, zip(*self._clipped, strict=True))
        if len(clipped) == _WINDOW and clipped.all():
            found = f"all of the last {_WINDOW} watched steps were clipped"
            yield "clipped", f"{found}. {quantiles(norms)}"


def _in_words(alarm: Alarm, stats, row, value, score):
    """The layer, and what is odd about it."""
    name, before = stats.names[row], "of the watched steps before"
    if alarm.indicator is NORM_RISE:
        norms = np.asarray(stats.gradient_norm, np.float64)
        name = stats.names[int(np.argmax(norms))]
        share = np.max(norms / np.linalg.norm(norms)) ** 2
        return name, (
            f"the gradient norm is {np.exp(value):.3g}, {np.exp(score):.2g} times the "
            f"median {before}; {name} has {share:.0%} of its square"
        )
    if alarm.indicator.form is Form.LEVEL:
        return name, f"the update of {name} is {np.exp(value):.2g} of its parameters"
    more = f"a factor of {np.exp(score):.2g} from the median {before}"
    return name, f"the gain of {name} is {np.exp(value):.2g}, {more}"
