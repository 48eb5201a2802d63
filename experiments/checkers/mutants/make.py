"""How a mutant is written: the name of an operation, and its mistake."""

from collections.abc import Callable

from experiments.checkers import points
from experiments.checkers.cases import Mutant
from experiments.checkers.operations import OPERATIONS, Operation
from experiments.checkers.rules import gradient_of, with_vjp


def mutant(
    klass: int,
    operation: str,
    mistake: str,
    wrong: Callable | None = None,
    *,
    of: Callable | None = None,
    rule: Callable | None = None,
    truth: Callable | None = None,
    point: Callable | None = None,
    dtypes: tuple[str, ...] | None = None,
    **fields,
) -> Mutant:
    """A mutant of one of the `OPERATIONS`, or of a function given here.

    Args:
        klass: the number of the class of bugs.
        operation: its name.
        mistake: in words.
        wrong: makes the gradients from ``(args, w, true gradients)``; or
        of: the function whose gradients the rule returns; or
        rule: makes the function with the wrong rule from the operation.
        truth: the operation, if it is none of the list.
        point: where it is checked, if elsewhere.
        dtypes: those in which there is a mistake, if not all.
        **fields: further fields of `Mutant`.
    """
    known = OPERATIONS[operation] if truth is None else Operation(truth, points.rows)
    plain, listed_point, exists = known

    def f(*args):  # without the defaults that custom_vjp would take for arguments
        return plain(*args)

    point, dtypes = point or listed_point, dtypes or exists
    if wrong is not None:
        made = with_vjp(f, wrong)
    elif of is not None:
        made = gradient_of(f, of)
    else:
        assert rule is not None
        made = rule(f)
    return Mutant(klass, operation, mistake, made, f, point, dtypes=dtypes, **fields)


def only(i: int, change: Callable) -> Callable:
    """A mistake in the gradient of one argument: a function of the true one."""

    def wrong(args, w, g):
        return (*g[:i], change(g[i]), *g[i + 1 :])

    return wrong


def every(change: Callable) -> Callable:
    """The same mistake in every gradient."""
    return lambda args, w, g: tuple(change(a) for a in g)
