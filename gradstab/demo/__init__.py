"""Three programs with a fault each, and what gradstab says of them: ``gradstab demo``.

Nothing here knows the answers: the programs are handed to `gradstab.analyze`,
`gradstab.check` and `gradstab.value_and_grad` as those of a user are. Each has its
mended form beside it, of which nothing may be said.
"""

from gradstab.demo.cases import CASES, Case
from gradstab.demo.overview import overview

__all__ = ["CASES", "Case", "overview"]


def __dir__():
    return __all__
