"""What was made once and is wanted again."""

import collections
from collections.abc import Callable, Hashable
from typing import TypeVar

Made = TypeVar("Made")


class Cache:
    """Things by the keys that they were made from, compared by equality.

    Args:
        most: how many are held; of more, the ones that were not used for longest go.

    >>> cache = Cache(most=1)
    >>> cache.get("a", list) is cache.get("a", list)
    True
    >>> cache.get("b", list), len(cache)
    ([], 1)
    """

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._made: collections.OrderedDict[Hashable, object] = (
            collections.OrderedDict()
        )

    def __len__(self) -> int:
        """How many are held."""
        return len(self._made)

    def get(self, key: Hashable, make: Callable[[], Made], /) -> Made:
        """What was made for this key before, or is made now.

        The key is held too, so that nothing else can take the identity of its parts.
        """
        try:
            found = self._made[key]
        except KeyError:
            # The making may ask for other things, or fail.
            found = self._made[key] = make()
            while len(self._made) > self._most:
                self._made.popitem(last=False)
        else:
            self._made.move_to_end(key)
        return found  # pyright: ignore[reportReturnType]

    def clear(self) -> None:
        """Forget everything."""
        self._made.clear()
