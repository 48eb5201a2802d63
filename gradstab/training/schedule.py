"""When a run stops to validate or to save."""

import dataclasses

from gradstab.errors import UserValueError

DEFAULT_STEPS_PER_DISPATCH = 50


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The boundaries of the dispatches, which are fixed, and what happens at them."""

    num_steps: int
    steps_per_dispatch: int
    validate_every: int | None
    checkpoint_every: int | None

    def stop(self, step: int, /) -> int:
        """The boundary after a step: the next multiple of the steps per dispatch.

        >>> schedule = make_schedule(25, 10)
        >>> [schedule.stop(step) for step in (0, 7, 10, 20)]
        [10, 10, 20, 25]
        """
        whole = (step // self.steps_per_dispatch + 1) * self.steps_per_dispatch
        return min(whole, self.num_steps)

    def validates(self, before: int, after: int, /) -> bool:
        """Whether to validate at the end of a dispatch, given the steps it took."""
        return self._due(self.validate_every, before, after)

    def saves(self, before: int, after: int, /) -> bool:
        """Whether to save at the end of a dispatch, given the steps it took."""
        return self._due(self.checkpoint_every, before, after)

    def _due(self, every, before, after):
        if after == self.num_steps:
            return True
        return every is not None and after // every > before // every


def make_schedule(
    num_steps: int,
    steps_per_dispatch: int | None = None,
    *,
    validate_every: int | None = None,
    checkpoint_every: int | None = None,
    watch_every: int | None = None,
) -> Schedule:
    """A schedule with as many steps per dispatch as asked for, or as are sensible.

    Raises:
        ValueError: a count below 1.

    >>> make_schedule(1000, checkpoint_every=20).steps_per_dispatch
    20
    """
    counts = {
        "num_steps": num_steps,
        "steps_per_dispatch": steps_per_dispatch,
        "validate_every": validate_every,
        "checkpoint_every": checkpoint_every,
        "watch_every": watch_every,
    }
    for name, count in counts.items():
        expect_count(name, count)
    if steps_per_dispatch is None:
        # Of a dispatch all steps are watched, or the first one.
        watched = None if watch_every == 1 else watch_every
        given = [num_steps, validate_every, checkpoint_every, watched]
        steps_per_dispatch = min(
            DEFAULT_STEPS_PER_DISPATCH, *(count for count in given if count is not None)
        )
    return Schedule(num_steps, steps_per_dispatch, validate_every, checkpoint_every)


def expect_count(name: str, count, /) -> None:
    """Raise unless a number of things is a whole number from 1, or None.

    Raises:
        ValueError: it is not.
    """
    if count is not None and (type(count) is not int or count < 1):
        raise UserValueError(f"{name} is {count!r}; expected a whole number from 1.")
