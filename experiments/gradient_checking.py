"""What does a gradient check by central differences show, and when does it mislead?

The lessons of the textbooks (Ng, Deep Learning Specialization, course 2; CS231n), each
with its trap. Row 20 of the scoreboard is the error of the differences of a right
gradient against the step h: h^2 f'''/6 of truncation, eps/h of rounding, so slopes of
+2 and -1 and the least error near eps^(1/3). Expected: slopes within 0.2, the least
error in float64 below 1e-9, in float32 within 1e-5 .. 1e-4 near h = 1e-2.

- J = theta^2 at 3, the usual demonstration, has no third derivative: the difference is
  exact with any step and shows nothing; in float32, rounding makes 5.99384 of 6 with
  the textbook's step of 1e-4, an error in its own band "suspicious".
- The step of 1e-7 and its bands are for float64. In float32 a right gradient is off by
  0.78 there, and never by less than 1e-5: use a step near 1e-2, or float64.
- The L2 penalty belongs into both loss and gradient. (Notes that say to check without
  regularisation are wrong: a penalty is deterministic.)
- With dropout the loss is a function only if the key is fixed: with fresh masks every
  gradient looks wrong.

gs.check needs no step. It says PASS of every right gradient, in float32 too, FAIL of
the planted bug (tanh' = 1 - 0.95 y^2) and of the forgotten penalty, and INCONCLUSIVE,
not FAIL, with fresh masks. All of it held with five seeds.
Half a minute on one core, nearly all of it compilation.

    python -m experiments.gradient_checking
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

NG, TAYLOR = "Ng, course 2, week 1", "Taylor's formula"
STEPS = 10.0 ** np.arange(-1, -8.5, -0.5)
NG_STEP = 1e-7
VERDICTS = {
    "right": "PASS",
    "planted bug": "FAIL",
    "L2 in both": "PASS",
    "L2 in the loss alone": "FAIL",
    "dropout, one key": "PASS",
    "dropout, fresh masks": "INCONCLUSIVE",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of the experiment."""

    sizes: tuple[int, ...] = (4, 10, 3)
    """Units of the input, the hidden layers and the output."""
    networks: int = 16
    mistake: float = 0.05
    """Share of tanh' that the planted bug leaves out."""
    l2: float = 0.1
    """Weight of the penalty that one of the bugs forgets."""
    dropout: float = 0.5
    """Share of the units that dropout sets to zero."""
    cases: tuple[str, ...] = tuple(VERDICTS)
    """Right and wrong gradients that are checked."""
    one_sided: bool = False
    """Use (f(x + h) - f(x)) / h instead of central differences."""
    seed: int = 0


def run(config):
    """Ng's ratio of every case and step, and what the checker says of each."""
    cases = _cases(config)
    arrays: dict = {"theta^2": _of_square(np.float32(3), 1e-4)}
    with jax.enable_x64(True):
        arrays["theta^2, float64"] = _of_square(np.float64(3), 10.0 ** -np.arange(4))
        for dtype in (jnp.float64, jnp.float32):
            name = jnp.dtype(dtype).name
            arrays[name] = _ratios(
                config, functools.partial(_loss, config), STEPS, dtype
            )
        for name, loss in progress(cases.items(), "ratios"):
            arrays[name] = _ratios(config, loss, [NG_STEP], jnp.float64)[0]
    for name, loss in progress(cases.items(), "checks"):
        arrays[f"verdict, {name}"] = _verdict(config, loss)
        if name == "right":
            arrays["verdict, right, float32"] = _verdict(config, loss, precision="own")
    return arrays


def _of_square(theta, step):
    step = np.asarray(step, theta.dtype)
    return ((theta + step) ** 2 - (theta - step) ** 2) / (2 * step)


def _verdict(config, loss, **options):
    theta, *rest = _point(config, config.seed, jnp.float32)
    options |= {"transformations": False, "locate": False}
    check = gs.check(lambda theta: loss(theta, *rest), theta, **options)
    return np.array(check.verdict.value)


def _cases(config):
    """Losses ``(theta, x, y, key)``, by name."""
    bug, masks = _tanh_without(config.mistake), {"dropout": config.dropout}
    forgotten = {"l2": config.l2, "seen": jax.lax.stop_gradient}
    kinds = [{}, {"tanh": bug}, {"l2": config.l2}, forgotten]
    kinds += [masks, masks | {"fresh": True}]
    losses = [functools.partial(_loss, config, **kind) for kind in kinds]
    named = dict(zip(VERDICTS, losses, strict=True))
    return {name: named[name] for name in config.cases}


def _loss(
    config, theta, x, y, key, *, tanh=jnp.tanh, l2=0.0, seen=lambda penalty: penalty,
    dropout=0.0, fresh=False,
):  # fmt: skip
    if fresh:  # masks of its own at every point
        bits = jax.lax.bitcast_convert_type(theta, jnp.uint32)
        key = jax.random.fold_in(key, jnp.sum(bits, dtype=jnp.uint32))
    penalty, num = l2 / 2 * (theta @ theta), len(config.sizes) - 1
    for i, (m, n) in enumerate(itertools.pairwise(config.sizes)):
        kernel, bias, theta = jnp.split(theta, [m * n, (m + 1) * n])
        x = x @ kernel.reshape(m, n) + bias[None]
        if i < num - 1:
            kept = jax.random.bernoulli(
                jax.random.fold_in(key, i), 1 - dropout, x.shape
            )
            x = tanh(x) * kept.astype(x.dtype) / (1 - dropout)
    return -jnp.mean(jax.nn.log_softmax(x)[jnp.arange(len(y)), y]) + seen(penalty)


def _tanh_without(share):
    """Tanh with the derivative 1 - (1 - share) tanh^2."""
    tanh = jax.custom_jvp(jnp.tanh)

    @tanh.defjvp
    def _(primals, tangents):
        y = jnp.tanh(*primals)
        return y, tangents[0] * (1 - (1 - share) * y**2)

    return tanh


def _point(config, seed, dtype):
    key_theta, key_x, key_y, key = jax.random.split(jax.random.key(seed), 4)
    num = sum((m + 1) * n for m, n in itertools.pairwise(config.sizes))
    theta = jax.random.normal(key_theta, (num,), dtype) / config.sizes[1] ** 0.5
    x = jax.random.normal(key_x, (10, config.sizes[0]), dtype)
    return theta, x, jax.random.randint(key_y, (10,), 0, config.sizes[-1]), key


def _ratios(config, loss, steps, dtype):
    """Ng's ratio |a - g| / (|a| + |g|): ``(steps, networks)``."""
    seeds = config.seed + jnp.arange(config.networks)
    points = jax.vmap(functools.partial(_point, config, dtype=dtype))(seeds)
    of_networks = jax.vmap(functools.partial(_ratio, config, loss), (None, 0))
    of_steps = jax.jit(jax.vmap(of_networks, (0, None)))
    return np.asarray(of_steps(jnp.asarray(steps, dtype), points))


def _ratio(config, loss, step, point):
    theta, *rest = point
    back = jnp.zeros_like(step) if config.one_sided else step

    def difference(i):
        v = (jnp.arange(len(theta)) == i).astype(theta.dtype)
        ahead, behind = loss(theta + step * v, *rest), loss(theta - back * v, *rest)
        return (ahead - behind) / (step + back)

    differences = jax.vmap(difference)(jnp.arange(len(theta)))
    gradient, norm = jax.grad(loss)(theta, *rest), jnp.linalg.norm
    return norm(differences - gradient) / (norm(differences) + norm(gradient))


def claims(config, arrays):
    """Of the curve (row 20), of theta^2, of Ng's bands, and of the checker."""
    wide, narrow = (_middle(arrays[name]) for name in ("float64", "float32"))
    row = functools.partial(claim, source=TAYLOR, row="20")
    square, square32 = arrays["theta^2, float64"], arrays["theta^2"]
    falling, rising = _slope(wide, 1e-1, 1e-4), _slope(wide, 1e-6, 1e-8)
    best, low = STEPS[np.argmin(narrow)], (1e-5, 1e-4)
    return [
        row("slope, float64, steps 1e-1 to 1e-4", falling, 2, within=0.2),
        row("slope, float64, steps 1e-6 to 1e-8", rising, -1, within=0.2),
        row("least error, float64", min(wide), 0, within=1e-9),
        row("least error, float32", min(narrow), 3.2e-5, between=low),
        row("best step, float32", best, 1e-2, between=(3e-3, 3.2e-2)),
        _of("theta^2 at 3, float32, step 1e-4", square32, 5.99384, within=1e-5),
        _of("theta^2, float64, steps 1 to 1e-3", np.ptp(square), 0, within=1e-9),
        _of("right, float32, step 1e-7", narrow[-3], 0.78, between=(0.5, 1)),
        *(_in_band(arrays, name, VERDICTS[name]) for name in config.cases),
        *(_says(arrays, name, word) for name, word in _words(arrays)),
    ]


def _in_band(arrays, name, word):
    """All networks below 1e-7 ("great") if right, else above 1e-3 ("worry")."""
    right, ratios = word == "PASS", arrays[name]
    worst, band = (max(ratios), (0, 1e-7)) if right else (min(ratios), (1e-3, 1))
    return _of(f"ratio at 1e-7, {name}", worst, band[0], between=band)


def _middle(ratios):
    return np.exp(np.mean(np.log(ratios), axis=1))


def _slope(errors, first, last):
    part = (first * 1.1 > STEPS) & (last / 1.1 < STEPS)
    return np.polyfit(np.log(STEPS[part]), np.log(errors[part]), 1)[0]


def _of(text, measured, published, /, **tolerance):
    return claim(text, measured, published, source=NG, **tolerance)


def _words(arrays):
    """The verdict expected of each case that was checked."""
    cases = [key.removeprefix("verdict, ") for key in arrays if "verdict" in key]
    return [(case, VERDICTS[case.removesuffix(", float32")]) for case in cases]


def _says(arrays, name, word):
    said = float(arrays[f"verdict, {name}"] == word)
    return claim(f"{name} is {word}", said, 1, within=0, source="gs.check")


def plot(config, arrays):
    """The error against the step in both precisions, and the ratios of the cases."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in ("float64", "float32"):
        left.loglog(STEPS, _middle(arrays[name]), "o-", label=name)
    left.loglog(STEPS, STEPS**2 / 5, "k--", label="slope 2")
    left.loglog(STEPS, 1e-15 / STEPS, "k:", label="slope -1")
    left.set_title("error of central differences", fontsize="medium")
    left.set(xlabel="step", ylabel="|a - g| / (|a| + |g|)", ylim=(1e-12, 2))
    legend(left)
    ratios = [np.median(arrays[name]) for name in config.cases]
    right.barh(config.cases, ratios)
    for limit in (1e-7, 1e-5, 1e-3):
        right.axvline(limit, color="k", linestyle=":")
    right.set_title("the textbook's ratio, case by case", fontsize="medium")
    right.set(xscale="log", xlabel="the ratio with step 1e-7; dotted: Ng's bands")
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
