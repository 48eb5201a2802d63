"""What a watched run says while it goes on."""

import collections
from typing import Any

import numpy as np

from gradstab.training.clipped import quantiles

# Of the norms so far; fewer say nothing.
_WINDOW, _LEAST = 100, 20
SPIKE = 10.0
"""Times the median norm of the steps before that is said to be a spike.

A rule of thumb: how often a healthy run jumps so far was not measured. The first steps,
in which norms fall quickly, are not judged."""
# A thing is said again after so many watched steps.
_QUIET = 100


class Alarms:
    """Looks at the statistics of every watched step, and says what is not healthy."""

    def __init__(self):
        self._norms = collections.deque(maxlen=_WINDOW)
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
            *self._spike(stats),
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

    def _spike(self, stats):
        norms = np.asarray(stats.gradient_norm, np.float64)
        norm = float(np.linalg.norm(norms))
        before = np.median(self._norms) if len(self._norms) >= _LEAST else np.inf
        if not np.isfinite(norm):
            return
        if norm > SPIKE * before > 0:
            layer = int(np.argmax(norms))
            share = (norms[layer] / norm) ** 2
            yield (
                ("spike", stats.names[layer]),
                f"the gradient norm is {norm:.3g}, {norm / before:.0f} times the "
                f"median of the {len(self._norms)} watched steps before; "
                f"{stats.names[layer]} has {share:.0%} of its square",
            )
        else:
            self._norms.append(norm)

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
