r"""Laws of derivatives that need no differences.

The VJP :math:`g(w) = J^\top w` is linear in its cotangent, zero at zero, the adjoint of
the JVP, and the same whichever arguments are differentiated beside. One program
computes the value and the derivatives; it is run for a few cotangents and tangents that
add up exactly, so that any difference is the rule's own, or rounding.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gradstab._attempt import Refusal, attempt
from gradstab.gradcheck.findings import Identity
from gradstab.gradcheck.laws.law import LUCK, judge, law, not_tried
from gradstab.gradcheck.laws.retracing import program_of, retraced
from gradstab.gradcheck.subject.abilities import LOOP
from gradstab.gradcheck.subject.problem import Problem
from gradstab.gradcheck.subject.vectors import dot, exact_combinations, norm

_ALL = "identities"

# The runs of the program, by cotangent (and tangent).
_PLAIN, _SCALED, _PART, _REST, _ONES, _RAISED, _ZERO, _PAIRED = range(8)

# Up to so many arguments, each is differentiated alone; beyond it two halves are.
_ALONE = 3

_SIDES = ("first outputs", "other outputs")


def identities(
    problem: Problem,
    point: Sequence[Any],
    rng: np.random.Generator,
    /,
    *,
    rtol: float = 0.0,
) -> tuple[Identity, ...]:
    r"""Tries the laws of first derivatives at a point.

    * The value that comes with a derivative is f's.
    * :math:`g(-2w) = -2g(w)`; :math:`g(w) = g(w_A) + g(w_B)` for a cotangent cut in
      two (one entry against all others, or some outputs against the others);
      :math:`g(w + 1) = g(w) + g(1)`; :math:`g(0) = 0`. Likewise for the JVP.
    * :math:`\langle w, Jv \rangle = \langle g(w), v \rangle`, if f has both modes.
    * The same call again gives the same, also when it is traced again, and a second
      call between a forward pass and its backward pass changes nothing.
    * Some arguments, or some outputs, alone give what they give among the others.
    * One array in place of two gives the sum of two gradients.

    A law can accuse a rule and never acquits one: a straight-through estimator obeys
    them all.

    Args:
        problem: what is checked.
        point: one array per leaf of the problem.
        rng: draws the cotangents and tangents.
        rtol: a smaller relative error is not accused.

    Returns:
        One record per law. Those that make no sense for f are left out, those that its
        code does not allow hold with a reason in their `detail`.

    Cost:
        One compilation of f with its derivatives, run 8 times; if a law is off by more
        than the usual rounding, another of about three times the size, run 64 times.
    """
    if problem.engine == LOOP:
        return (not_tried(_ALL, "f cannot be traced"),)
    if problem.once:
        return (not_tried(_ALL, "f is large, and made of JAX's own operations"),)
    with problem.context():
        point = tuple(map(np.asarray, point))
        if program_of(problem.f, point) is None:
            return (not_tried(_ALL, "f is traced to another program each time"),)
        plan = _plan(problem, point, rng)
        inputs = _inputs(problem, plan, point, rng)
        found = judge(
            _program(problem, plan),
            inputs,
            lambda runs: _laws(problem, plan, inputs, runs),
            problem=problem,
            rng=rng,
            rtol=rtol,
            again=lambda run: [(0, run(*inputs[0]))],
        )
        repeats, *found = found
        if not repeats.holds:
            return (not_tried(_ALL, "f gives another value each time"),)
        again = retraced(problem, inputs[0][:2], rng, rtol=rtol)
        return (*found, *plan["untried"], *again)


def _plan(problem: Problem, point: Sequence[Any], rng: np.random.Generator):
    """What the program computes besides value and derivatives."""
    plan = {"parts": [], "outputs": None, "pair": None, "untried": []}
    if "reverse" not in problem.modes:
        return plan
    plan["parts"] = _parts(len(point), rng)
    if len(problem.outputs) > 1:
        plan["outputs"] = len(problem.outputs) // 2
    plan["pair"] = _pair(point)
    for name, function in _EXTRAS.items():
        shapes = (point, problem.outputs)
        if not (wanted := plan[name]):
            continue
        of_f = functools.partial(function, problem.f, wanted)
        refusal = attempt(jax.eval_shape, of_f, *shapes)
        if isinstance(refusal, Refusal):
            plan["untried"].append(not_tried(_NAMES[name], refusal))
            plan[name] = None
    return plan


def _parts(count: int, rng: np.random.Generator):
    """Sets of arguments to be differentiated without the others."""
    if count == 1:
        return []
    if count <= _ALONE:
        return [(i,) for i in range(count)]
    order = [int(i) for i in rng.permutation(count)]
    return [tuple(sorted(half)) for half in (order[: count // 2], order[count // 2 :])]


def _pair(point: Sequence[Any]):
    """The first two arguments that could be one array."""
    for i, x in enumerate(point):
        for k in range(i + 1, len(point)):
            if (x.shape, x.dtype) == (point[k].shape, point[k].dtype):
                return i, k
    return None


def _program(problem: Problem, plan):
    f = problem.f

    def program(point: Sequence[Any], w: Sequence[jax.Array], v: Sequence[jax.Array]):
        raw = {"value": f(point)}
        if "reverse" in problem.modes:
            raw["primal"], pullback = jax.vjp(f, point)
            (raw["gradient"],) = pullback(w)
            for name, function in _EXTRAS.items():
                if plan[name]:
                    raw[name] = function(f, plan[name], point, w)
        if "forward" in problem.modes:
            raw["forward primal"], raw["tangent"] = jax.jvp(f, (point,), (v,))
        return raw

    return program


def _by_parts(
    f: Callable[..., Any], parts, point: Sequence[Any], w: Sequence[jax.Array]
):
    """The gradient, assembled from those with respect to some arguments each."""
    gradient = {}
    for part in parts:
        given = dict(enumerate(point))
        some = {i: given.pop(i) for i in part}
        of_some = lambda some, rest=given: f(_joined(some, rest))  # noqa: E731
        gradient |= jax.vjp(of_some, some)[1](w)[0]
    return _joined(gradient, {})


def _by_outputs(
    f: Callable[..., Any], first, point: Sequence[Any], w: Sequence[jax.Array]
):
    """The gradients of the first outputs, and of the others."""
    ahead = jax.vjp(lambda p: f(p)[:first], point)[1](w[:first])[0]
    behind = jax.vjp(lambda p: f(p)[first:], point)[1](w[first:])[0]
    return ahead, behind


def _of_one_array(
    f: Callable[..., Any], pair, point: Sequence[Any], w: Sequence[jax.Array]
):
    """The gradient with respect to an array that stands for two arguments."""
    i, k = pair
    return jax.vjp(lambda x: f(_replaced(point, k, x, i)), point[i])[1](w)[0]


_EXTRAS = {"parts": _by_parts, "outputs": _by_outputs, "pair": _of_one_array}
_NAMES = {
    "parts": "arguments alone",
    "outputs": "outputs alone",
    "pair": "one array for two arguments",
}


def _joined(some, rest):
    both = some | rest
    return tuple(both[i] for i in sorted(both))


def _replaced(point: Sequence[Any], k, x: jax.Array, i: int | None = None):
    """The point with its leaf k, and i if given, replaced by x."""
    return tuple(x if n in (k, i) else leaf for n, leaf in enumerate(point))


def _inputs(problem: Problem, plan, point: Sequence[Any], rng: np.random.Generator):
    """The arguments of all runs."""
    ws = exact_combinations(rng, problem.outputs, kept=plan["outputs"])
    vs = exact_combinations(rng, point)
    runs = [(point, w, v) for w, v in zip(ws, vs, strict=True)]
    if plan["pair"]:
        i, k = plan["pair"]
        runs.append((_replaced(point, k, point[i]), ws[_PLAIN], vs[_PLAIN]))
    return runs


def _laws(problem: Problem, plan, inputs: Sequence[Any], runs):
    """All laws, from the results for all inputs and, last, of the first one again."""
    *runs, again = runs
    found = [_repeats("value", _outputs(problem), runs, again, exact=True)]
    if "reverse" in problem.modes:
        found += _of_gradients(problem, runs, again)
        found += _of_selections(problem, plan, runs)
    if "forward" in problem.modes:
        outputs = _outputs(problem)
        found += [_same_value(runs, "forward primal", "JVP", outputs)]
        found += _linear(runs, "tangent", outputs, "tangent")
    if set(problem.modes) == {"forward", "reverse"}:
        found.append(_adjoint(inputs, runs))
    return found


def _outputs(problem: Problem):
    return problem.output_names


def _of_gradients(problem: Problem, runs, again):
    return [
        _same_value(runs, "primal", "VJP", _outputs(problem)),
        *_linear(runs, "gradient", problem.names, "cotangent"),
        _repeats("gradient", problem.names, runs, again),
    ]


def _repeats(key, leaves: Sequence[Any], runs, again, exact: bool = False):
    pair, detail = (again[key], runs[_PLAIN][key]), f"the same {key}, computed again"
    return law("repeated calls", leaves, *pair, detail=detail, once=True, exact=exact)


def _same_value(runs, key, mode: str, outputs):
    run = runs[_PLAIN]
    detail = f"the value that comes with the {mode}, and f's own"
    return law(f"value of the {mode}", outputs, run[key], run["value"], detail=detail)


@np.errstate(invalid="ignore", over="ignore")
def _linear(runs, key, leaves: Sequence[Any], what):
    plain, scaled, part, rest, ones, raised, zero = (run[key] for run in runs[:7])
    return [
        law(
            f"homogeneous in the {what}",
            leaves,
            scaled,
            [-2 * np.float64(a) for a in plain],
            detail=f"minus twice the {what}",
        ),
        law(
            f"additive in the {what}",
            leaves,
            [np.float64(a) + np.float64(b) for a, b in zip(part, rest, strict=True)],
            plain,
            detail=f"the {what} cut in two: one entry or output, and the others",
        ),
        law(
            f"constant {what}",
            leaves,
            [np.float64(a) - np.float64(b) for a, b in zip(raised, plain, strict=True)],
            ones,
            like=raised,
            detail=f"a {what} of ones, and the difference that it makes to another",
        ),
        law(
            f"zero {what}",
            leaves,
            zero,
            [np.zeros_like(a) for a in plain],
            like=plain,
            detail=f"a {what} of zeros",
        ),
    ]


def _of_selections(problem: Problem, plan, runs):
    plain, found = runs[_PLAIN]["gradient"], []
    if plan["parts"]:
        found.append(
            law(
                _NAMES["parts"],
                problem.names,
                runs[_PLAIN]["parts"],
                plain,
                detail="gradients for some arguments only, and for all at once",
            )
        )
    if plan["outputs"]:
        names = [f"{name} from the {side}" for side in _SIDES for name in problem.names]
        found.append(
            law(
                _NAMES["outputs"],
                names,
                [g for side in runs[_PLAIN]["outputs"] for g in side],
                [*runs[_PART]["gradient"], *runs[_REST]["gradient"]],
                detail="some outputs only, and a zero cotangent for the others",
            )
        )
    if plan["pair"]:
        found.append(_of_pair(problem, plan["pair"], runs[_PAIRED]))
    return found


@np.errstate(invalid="ignore", over="ignore")
def _of_pair(problem: Problem, pair, run):
    i, k = pair
    one, other = (np.float64(run["gradient"][n]) for n in pair)
    return law(
        _NAMES["pair"],
        [f"{problem.names[i]}, {problem.names[k]}"],
        [run["pair"]],
        [one + other],
        like=[np.hypot(one, other)],
        detail="the gradient of f(x, x), and the sum of both gradients",
    )


@np.errstate(invalid="ignore", over="ignore")
def _adjoint(inputs: Sequence[Any], runs):
    left, right, sizes, units = [], [], [], []
    for n in (_PLAIN, _ONES):
        (_, w, v), run = inputs[n], runs[n]
        left.append(dot(w, run["tangent"]))
        right.append(dot(run["gradient"], v))
        ends = norm(w) * norm(run["tangent"]), norm(run["gradient"]) * norm(v)
        sizes.append(sum(ends))
        # Both over the root of their number of entries are near the norm of J, and what
        # an error E of J does to the product is near that of E.
        counts = (sum(a.size for a in vector) for vector in (w, v))
        units.append(max(e / np.sqrt(n) for e, n in zip(ends, counts, strict=True)))
    return law(
        "adjoint of the JVP",
        [""],
        [np.where(np.isfinite(left), left, right)],
        [np.array(right)],
        like=[np.array(sizes)],
        units=[LUCK * norm([np.array(units)])],
        detail="<w, J v> and <J' w, v>",
    )
